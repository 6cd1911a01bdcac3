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

  Args:
    console: the console to print on.
    every: seconds between lines.

  Yields:
    A function to call with (files done, all files).
  """
  with contextlib.ExitStack() as stack:
    bar = None
    began = said = time.monotonic()

    def progress(done: int, total: int) -> None:
      nonlocal bar, said
      if console.is_terminal:
        if bar is None:  # no bar if there is nothing to decode
          bar = stack.enter_context(Progress(
              TextColumn('reading'), BarColumn(), MofNCompleteColumn(),
              TextColumn('files'), TimeElapsedColumn(), TextColumn('left'),
              TimeRemainingColumn(), console=console, transient=True))
          bar.add_task('reading', total=total)
        bar.update(bar.task_ids[0], completed=done)
        return
      now = time.monotonic()
      if done < total and now - said >= every:
        said = now
        left = (now - began) * (total - done) / done
        console.print(f'read {done:,} of {total:,} files, about {left:.0f} s '
                      'left', soft_wrap=True)
    yield progress
