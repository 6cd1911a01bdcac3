"""Reports the rounds of a run: console, metrics.jsonl and TensorBoard."""

from collections.abc import Sequence
import pathlib

import numpy as np
from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)

from fedu_jax.core import communication
from fedu_jax.core.state import Metrics
from fedu_jax.runtime import json_files
from fedu_jax.runtime import metrics_log
from fedu_jax.runtime import terminal
from fedu_jax.runtime.metrics_log import Row

# The fields of rows and summaries that depend on the clock. All other fields
# have the same bits, however often a run was stopped.
CLOCK = 'seconds', 'images_per_second', 'compile_seconds', 'wall_seconds'

_CURVES = 100  # the first clients are in TensorBoard; metrics.jsonl has all


def megabytes(count: int) -> str:
  """Formats a number of bytes: 1.2 MB."""
  return f'{count / 1e6:.1f} MB'


def names(clients: Sequence[int]) -> str:
  """Names clients by their ids: 'clients 3, 7'; at most eight of them."""
  shown = ', '.join(str(x) for x in clients[:8])
  more = f' and {len(clients) - 8:,} more' if len(clients) > 8 else ''
  return f"client{'s' if len(clients) > 1 else ''} {shown}{more}"


class NoReport:
  """Sums up rounds without reporting them. A context manager.

  All hosts but the first use it.

  Attributes:
    seconds: the time of all rounds.
    images: the number of images trained on.
    left_out: the number of local trainings with numbers that were not finite.
    beyond: the last round that will be run and written again.
    missing: the number of completed rounds without a row.
  """

  def __init__(self) -> None:
    # Rows are not kept: a long run would need too much memory.
    self.seconds, self.images, self.left_out = 0.0, 0, 0
    self.beyond = 0
    self.missing = 0

  def __enter__(self) -> 'NoReport':
    return self

  def __exit__(self, *_) -> None:
    pass

  def add(self, row: Row) -> None:
    """Adds the row of a round to the sums."""
    self.seconds += row['seconds']
    self.images += row['images']
    self.left_out += len(row.get('left_out', ()))  # earlier versions had none

  def sums(self) -> dict[str, float]:
    """Returns the speed over all rounds, those of earlier starts included."""
    speed = self.images / self.seconds if self.seconds else 0.0
    return {'images_per_second': speed, 'seconds': self.seconds,
            'left_out': self.left_out}

  def settle(self) -> None:
    """Returns when all rows are on disk.

    Raises:
      OSError: they cannot be written, and wait in memory.
    """


class RoundReport(NoReport):
  """Reports each round on the console, in metrics.jsonl and in TensorBoard.

  A context manager. Rounds after `done` in metrics.jsonl have no checkpoint.
  They will be run and written again.
  """

  def __init__(self, folder: pathlib.Path, console: Console, name: str, *,
               done: int, rounds: int):
    super().__init__()
    self._console = console
    self._lines = metrics_log.Lines(folder / 'metrics.jsonl', done,
                                    see=super().add)
    self.beyond, self.missing = self._lines.beyond, self._lines.missing
    self._board = metrics_log.Board(
        folder / 'tensorboard', done,
        lambda text: terminal.say(console, f'{name}: {text}'))
    self._progress = Progress(
        TextColumn(name), BarColumn(), MofNCompleteColumn(),
        TextColumn('rounds'), TextColumn('{task.fields[speed]}'),
        TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn(),
        console=console)
    self._task = self._progress.add_task(
        name, total=rounds, completed=done, speed='')

  def __enter__(self) -> 'RoundReport':
    self._progress.start()
    return self

  def __exit__(self, *_) -> None:
    self._progress.stop()
    self._board.close()

  def add(self, row: Row) -> None:
    """Reports a round.

    Args:
      row: 'round'; numbers by flat names; and under 'clients' a dict from a
        metric's name to its values, one for each client of the cohort.
    """
    row = json_files.plain(row)
    super().add(row)
    self._lines.add(row)
    shown = {name: value for name, value in row.items()
             if isinstance(value, (int, float)) and name != 'round'}
    per_client = row['clients'] | {'global_predictor': row['global_predictor']}
    for name, values in per_client.items():
      shown |= {f'client{i}/{name}': value
                for i, value in zip(row['cohort'], values)
                if isinstance(value, (int, float)) and i < _CURVES}
    self._board.add(row['round'], shown)
    self._progress.update(self._task, completed=row['round'],
                          speed=f"{row['images_per_second']:.0f} images/s")
    terminal.say(self._console, _line(row))

  def settle(self) -> None:
    self._lines.settle()


def row_of(round_: int, metrics: Metrics, seconds: float, *, batch_size: int,
           sent: communication.Sent) -> Row:
  """Makes the row of a round from the metrics that the engine returns.

  Args:
    round_: the round, from 1.
    metrics: arrays [M] by name, of the clients of the cohort.
    seconds: how long the round took.
    batch_size: images of a step.
    sent: the bytes that one client sends and receives.

  Returns:
    What `RoundReport.add` takes.
  """
  per_client = dict(metrics)
  cohort = per_client.pop('cohort')
  took = per_client.pop('global_predictor')
  arrived = per_client.pop('arrived')
  sound = per_client.pop('sound')
  # The mean is over sound clients, or over all if none is.
  counted = sound if sound.any() else ...
  drift = per_client['divergence'][counted]
  mean = {}
  if 'loss' in per_client:  # not every learner has one
    with np.errstate(invalid='ignore', over='ignore'):
      # Not finite if no client's loss is.
      mean = {'loss': np.mean(per_client['loss'][counted])}
  images = int(per_client['steps'].sum()) * batch_size
  return {
      'round': round_, **mean,
      'divergence_min': drift.min(), 'divergence_max': drift.max(),
      # Without lost uploads, but with those that are left out as not finite.
      'bytes_up': sent.up * int(arrived.sum()),
      'bytes_down': sent.down * len(cohort),
      'images': images, 'seconds': seconds,
      'images_per_second': images / seconds, 'cohort': cohort,
      'arrived': arrived, 'left_out': cohort[~sound],
      'global_predictor': took, 'clients': per_client}


def _line(row: Row) -> str:
  def number(value, digits):
    return 'nan' if value is None else f'{value:.{digits}f}'
  drift = [x for x in row['clients']['divergence'] if x is not None]
  low, high = (min(drift), max(drift)) if drift else (None, None)
  knn = ''
  if 'knn_accuracy' in row:
    accuracy = row['knn_accuracy']
    knn = f'knn {number(accuracy and 100 * accuracy, 2)}  '
  lost = len(row['arrived']) - sum(row['arrived'])
  dropped = f"dropped {lost}/{len(row['arrived'])}  " if lost else ''
  if row['left_out']:
    dropped += f"left out: {names(row['left_out'])} (not finite)  "
  if not any(came and client not in row['left_out'] for client, came in
             zip(row['cohort'], row['arrived'])):
    dropped += 'the server stays as it was  '
  loss = f"loss {number(row['loss'], 4)}  " if 'loss' in row else ''
  return (f"round {row['round']:>4}  {loss}{knn}"
          f'divergence {number(low, 3)}-{number(high, 3)}  '
          f"global predictor {sum(row['global_predictor'])}"
          f"/{len(row['global_predictor'])}  {dropped}"
          f"up {megabytes(row['bytes_up'])}  "
          f"down {megabytes(row['bytes_down'])}  "
          f"{row['images_per_second']:.0f} images/s")
