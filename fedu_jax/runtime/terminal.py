"""Consoles that may break, as those of a log on a full disk do."""

from collections.abc import Iterator
import contextlib
import os
import sys
from typing import Any, TextIO

from rich.console import Console

from fedu_jax.runtime import durable_files

_NARROW, _WIDE = 40, 1000  # columns of a console, at least and at most


class _Deaf:
  """A text file whose failures, as of a log on a full disk, are not told of."""

  def __init__(self, file: TextIO):
    self._file = file
    self.failed: Exception | None = None  # of what was printed last

  def write(self, text: str) -> int:
    with self._or_not():
      try:
        self._file.write(text)
      except UnicodeEncodeError:  # as of a name in a locale without its letters
        coding = self._file.encoding
        self._file.write(text.encode(coding, 'backslashreplace').decode(coding))
    return len(text)

  def flush(self) -> None:
    with self._or_not():
      self._file.flush()

  @contextlib.contextmanager
  def _or_not(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError) as error:  # the second: it has been closed
      self.failed = error

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)


def console(file: TextIO | None = None, **options: Any) -> Console:
  """Makes a console that may break without ending what prints there.

  Brackets are printed as they are: Rich's own would take `[old]` in a path for
  markup and leave it out, and fail at `[/old]`.

  Args:
    file: what it prints to; None for stdout.
    **options: Rich's.
  """
  deaf: Any = _Deaf(file or sys.stdout or open(os.devnull, 'w'))
  plain: dict[str, Any] = {'highlight': False, 'markup': False, 'emoji': False}
  made = Console(file=deaf, **plain | options)
  if not _NARROW <= made.width <= _WIDE:  # by COLUMNS, which can be anything
    made.width = min(max(made.width, _NARROW), _WIDE)
  return made


def unprinted(console: Console) -> str:
  """Says why what was printed cannot be read; '' if it can.

  Nor is it said of a pipe whose reader has gone, having read enough.

  Args:
    console: made by `console`.
  """
  failed = getattr(console.file, 'failed', None)
  if failed is None or isinstance(failed, BrokenPipeError):
    return ''
  return durable_files.reason(failed)


def say(console: Console, text: str) -> None:
  """Prints a line as it is, on a console that a caller may have brought."""
  console.print(text, markup=False, emoji=False, highlight=False,
                soft_wrap=True)
