"""Shows how far the reading of files is, and how long it will take."""

from collections.abc import Callable, Iterator
import contextlib
import time

from rich.console import Console
from rich.progress import (
    BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn,
    TimeRemainingColumn)

_SECONDS = 15  # between lines, where there is no terminal


@contextlib.contextmanager
def shown(console: Console, every: float = _SECONDS
          ) -> Iterator[Callable[[int, int], None]]:
  """Yields what is told how many files are done, and of how many.

  On a terminal it draws a bar; elsewhere it prints a line now and then.

  Args:
    console: where to print.
    every: seconds between lines.
  """
  with contextlib.ExitStack() as stack:
    bar = None
    began = said = time.monotonic()

    def progress(done: int, total: int) -> None:
      nonlocal bar, said
      if console.is_terminal:
        if bar is None:  # only if there is something to decode
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
