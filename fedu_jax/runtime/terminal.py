"""Consoles that may fail, for example a log on a full disk."""

from collections.abc import Iterator
import contextlib
import os
import sys
from typing import Any, TextIO

from rich.console import Console

from fedu_jax.runtime import durable_files

_NARROW, _WIDE = 40, 1000  # columns of a console, at least and at most


class _Deaf:
  """A text file that keeps the last failure to write, and raises none."""

  def __init__(self, file: TextIO):
    self._file = file
    self.failed: Exception | None = None

  def write(self, text: str) -> int:
    with self._or_not():
      try:
        self._file.write(text)
      except UnicodeEncodeError:  # the locale lacks a letter of a name
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
    except (OSError, ValueError) as error:  # ValueError: the file is closed
      self.failed = error

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)


def console(file: TextIO | None = None, **options: Any) -> Console:
  """Makes a console that raises no error if its file cannot be written.

  It prints brackets unchanged. Rich's default would take `[old]` in a path for
  markup and drop it, and fail at `[/old]`.

  Args:
    file: the file to print to; None for stdout.
    **options: options of Rich's Console.
  """
  deaf: Any = _Deaf(file or sys.stdout or open(os.devnull, 'w'))
  plain: dict[str, Any] = {'highlight': False, 'markup': False, 'emoji': False}
  made = Console(file=deaf, **plain | options)
  if not _NARROW <= made.width <= _WIDE:  # from COLUMNS, which may be wrong
    made.width = min(max(made.width, _NARROW), _WIDE)
  return made


def unprinted(console: Console) -> str:
  """Returns why lines could not be printed; '' if they could.

  A pipe that was closed by its reader is no failure.

  Args:
    console: a console made by `console`.
  """
  failed = getattr(console.file, 'failed', None)
  if failed is None or isinstance(failed, BrokenPipeError):
    return ''
  return durable_files.reason(failed)


def say(console: Console, text: str) -> None:
  """Prints a line unchanged, on any Rich console."""
  console.print(text, markup=False, emoji=False, highlight=False,
                soft_wrap=True)
