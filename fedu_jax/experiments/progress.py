"""How far a queue of runs is: a progress bar, and an estimate of what is left.
"""

from collections.abc import Mapping
import datetime
import pathlib
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn,
    TimeElapsedColumn)
from rich.text import Text

from fedu_jax.experiments import experiment as plans
from fedu_jax.training import score_run


def seconds_left(elapsed: float, begun_with: int, left: int) -> float | None:
  """The time left if runs go on to end as often as they have so far.

  Args:
    elapsed: since the queue began, in seconds.
    begun_with: how many runs were to be done then.
    left: how many are now.

  Returns:
    Seconds, or None while none has ended.
  """
  if not left:
    return 0
  ended = begun_with - left
  return elapsed / ended * left if ended > 0 else None


class _Left(ProgressColumn):
  """What `seconds_left` says. Rich's own column forgets after half a minute."""

  def render(self, task: Task) -> Text:
    """As the other columns show time."""
    seconds = seconds_left(task.elapsed or 0, task.fields['begun_with'],
                           task.fields['left'])
    shown = ('-:--:--' if seconds is None
             else datetime.timedelta(seconds=int(seconds)))
    return Text(f'left {shown}', style='progress.remaining')


class Cell(NamedTuple):
  """What a seed of an arm is asked, and where its run lies."""
  arm: plans.Arm
  asked: str
  folder: pathlib.Path

  def scored(self) -> bool:
    """Whether the run has all the scores that are asked for."""
    return all(score_run.is_scored(
        self.folder, self.asked, encoder=encoder, rounds=rounds)
               for encoder, rounds in self.arm.encoders())


class Bar(Progress):
  """A bar over the runs of a queue, of which other processes may do some.

  Attributes:
    to_do: the cells that were not scored when last looked at, by their keys.
  """

  def __init__(self, cells: Mapping[Any, Cell], console: Console):
    """Looks which runs are done.

    Args:
      cells: by any keys; those of one folder are one run.
      console: where to draw.

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
    """How many runs are not trained, or not scored as they are asked."""
    self.to_do = {key: cell for key, cell in self.to_do.items()
                 if not cell.scored()}
    return _runs(self.to_do)

  def show(self, title: str) -> None:
    """Says what is worked at, and looks again."""
    left = self.left()
    self.update(self._task, description=title, left=left,
                completed=self._total - left)


def _runs(cells: Mapping[Any, Cell]) -> int:
  return len({cell.folder for cell in cells.values()})
