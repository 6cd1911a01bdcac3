"""A progress bar over a queue of runs, with an estimate of the time left."""

from collections.abc import Mapping
import datetime
import pathlib
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  ProgressColumn,
  Task,
  TextColumn,
  TimeElapsedColumn,
)
from rich.text import Text

from fedu_jax.experiments import experiment as plans
from fedu_jax.training import score_run


def seconds_left(elapsed: float, begun_with: int, left: int) -> float | None:
  """Estimates the time left from the runs that have ended so far.

  Args:
    elapsed: seconds since the queue began.
    begun_with: the number of runs to do at that time.
    left: the number of runs to do now.

  Returns:
    Seconds, or None if no run has ended.
  """
  if not left:
    return 0
  ended = begun_with - left
  return elapsed / ended * left if ended > 0 else None


class _Left(ProgressColumn):
  """Shows `seconds_left`. Rich's own column uses the last half minute only."""

  def render(self, task: Task) -> Text:
    """Formats the time as Rich's other columns do."""
    seconds = seconds_left(task.elapsed or 0, task.fields['begun_with'],
                           task.fields['left'])
    shown = ('-:--:--' if seconds is None
             else datetime.timedelta(seconds=int(seconds)))
    return Text(f'left {shown}', style='progress.remaining')


class Cell(NamedTuple):
  """A seed of an arm, with its protocols and the folder of its run."""
  arm: plans.Arm
  asked: str
  folder: pathlib.Path

  def scored(self) -> bool:
    """Whether the run has all scores of its protocols."""
    return all(score_run.is_scored(
        self.folder, self.asked, encoder=encoder, rounds=rounds)
               for encoder, rounds in self.arm.encoders())


class Bar(Progress):
  """A bar over the runs of a queue; other processes may do some of them.

  Attributes:
    to_do: by their keys, the cells that had no scores at the last look.
  """

  def __init__(self, cells: Mapping[Any, Cell], console: Console):
    """Counts the runs that are done.

    Args:
      cells: cells by any keys; cells of one folder are one run.
      console: the console to draw on.

    Raises:
      BadInput: the scores of a run cannot be read.
    """
    super().__init__(
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
        TextColumn('runs'), TimeElapsedColumn(), _Left(), console=console)
    self.to_do = cells
    self._total = _runs(cells)
    left = self.left()
    self._task = self.add_task('', total=self._total, begun_with=left,
                               left=left)

  def left(self) -> int:
    """Looks again, and returns the number of runs without all scores."""
    self.to_do = {key: cell for key, cell in self.to_do.items()
                 if not cell.scored()}
    return _runs(self.to_do)

  def show(self, title: str) -> None:
    """Shows the title of the current experiment, and looks again."""
    left = self.left()
    self.update(self._task, description=title, left=left,
                completed=self._total - left)


def _runs(cells: Mapping[Any, Cell]) -> int:
  return len({cell.folder for cell in cells.values()})
