"""Places for decoded rows: memory, or a file with a journal."""

from collections.abc import Callable
import math
import pathlib
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedu_jax.data import row_file
from fedu_jax.data.decoding_journal import Done
from fedu_jax.data.decoding_journal import Entry
from fedu_jax.data.decoding_journal import Journal
from fedu_jax.data.image_files import Decoded

_AT_ONCE = 2**25  # bytes of rows that are copied at a time


class Job(NamedTuple):
  """The files to decode.

  Attributes:
    files: the number of files.
    row: the shape of a row.
    dtype: the dtype of the rows.
    owners: the owner of each file, [files] i32.
    decode: (file, depth or 0) -> the image; why it is skipped; or the largest
      value of an image of unknown depth.
  """
  files: int
  row: tuple[int, ...]
  dtype: Any
  owners: np.ndarray
  decode: Callable[[int, int], Decoded | str | int]

  @property
  def row_bytes(self) -> int:
    return math.prod(self.row) * np.dtype(self.dtype).itemsize

  @property
  def nbytes(self) -> int:
    """The bytes of all rows, if no file is skipped."""
    return self.files * self.row_bytes


class Target(Protocol):
  """A place for rows, which remembers what is done."""
  done: Done

  def write(self, first: int, rows: np.ndarray) -> None:
    """Writes rows from row `first` on."""

  def read(self, first: int, count: int) -> np.ndarray:
    """Reads rows."""

  def mark(self, entry: Entry) -> None:
    """Marks rows that were written as done."""


class InMemory:
  """Rows in memory."""

  def __init__(self, job: Job, begun: 'InFile | None' = None):
    """Allocates the rows; takes over those of another target, if any."""
    self.done = Done()
    self.rows = np.empty((job.files, *job.row), job.dtype)
    if begun and not begun.done.moving:
      self.done = begun.done
      count = len(self.done.sums)
      step = max(1, _AT_ONCE // job.row_bytes)
      for first in range(0, count, step):
        last = min(first + step, count)
        self.rows[first:last] = begun.read(first, last - first)

  def write(self, first: int, rows: np.ndarray) -> None:
    self.rows[first:first + len(rows)] = rows

  def read(self, first: int, count: int) -> np.ndarray:
    return self.rows[first:first + count].copy()

  def mark(self, entry: Entry) -> None:
    self.done.add(entry)


class InFile:
  """Rows in a file, with a journal. An earlier start may have begun both."""

  def __init__(self, part: row_file.Part, journal: Journal):
    """Takes over what of the journal is sound in the file."""
    self._part, self._journal = part, journal
    self.done = Done()
    for number, entry in enumerate(journal.entries):
      if entry.get('moving'):  # rows may be anywhere
        journal.keep(0)
        self.done = Done()
        break
      if not self._is_sound(entry):
        journal.keep(number)
        break
      self.done.add(entry)

  def _is_sound(self, entry: Entry) -> bool:
    """Whether the file has the rows of an entry, as they were written."""
    sums = [*enumerate(entry.get('sums', []), len(self.done.sums)),
            *entry.get('changed', [])]
    for number, value in sums:
      row = self._part.read(number, 1)
      # A sum of 0 is that of a row that waits for its depth.
      if not len(row) or value and row_file.sum_of(row[0]) != value:
        return False
    return True

  def write(self, first: int, rows: np.ndarray) -> None:
    self._part.write(first, rows)

  def read(self, first: int, count: int) -> np.ndarray:
    return self._part.read(first, count)

  def mark(self, entry: Entry) -> None:
    self._part.sync()
    self._journal.add(entry)
    self.done.add(entry)

  def finish(self, path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Gives the file its final name when all is decoded; adds small arrays."""
    self._part.finish(path, np.array(self.done.sums, np.uint32), arrays)
