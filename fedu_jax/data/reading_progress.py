"""Shows the progress of reading files and the time that is left."""

from collections.abc import Callable, Iterator
import contextlib
import time

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)

_SECONDS = 15  # between lines, without a terminal


@contextlib.contextmanager
def shown(console: Console, every: float = _SECONDS
          ) -> Iterator[Callable[[int, int], None]]:
  """Shows progress: a bar on a terminal, or else a line at intervals.

  The rate and the time left count only the files of this start.

  Args:
    console: the console to print on.
    every: seconds between lines.

  Yields:
    A function to call with (files done, all files): first with those that an
    earlier start has done.
  """
  with contextlib.ExitStack() as stack:
    bar = None
    began, first, said = 0.0, -1, 0.0

    def progress(done: int, total: int) -> None:
      nonlocal bar, began, first, said
      now = time.monotonic()
      if first < 0:
        began, first, said = now, done, now
      rate = (done - first) / max(now - began, 1e-9)
      if console.is_terminal:
        if bar is None:  # no bar if there is nothing to decode
          bar = stack.enter_context(Progress(
              TextColumn('reading'), BarColumn(), MofNCompleteColumn(),
              TextColumn('files'), TextColumn('{task.fields[rate]:,.0f}/s'),
              TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn(),
              console=console, transient=True))
          bar.add_task('reading', total=total, completed=done, rate=0.0)
        bar.update(bar.task_ids[0], completed=done, rate=rate)
      elif first < done < total and now - said >= every:
        said = now
        console.print(
            f'read {done:,} of {total:,} files, {rate:,.0f} a second, about '
            f'{_shown((total - done) / rate)} left', soft_wrap=True)
    yield progress


def _shown(seconds: float) -> str:
  """A time for a person: 90 s, 12 min, 3.5 h."""
  if seconds < 100:
    return f'{seconds:.0f} s'
  return (f'{seconds / 60:.0f} min' if seconds < 100 * 60
          else f'{seconds / 3600:.1f} h')
