"""Decodes files into rows, block by block, so that it can go on after a kill.

Files are decoded in their order, and the rows of those that are skipped are
left out at once. Images whose depth is not known at first get an empty row.
When the largest value of each owner is known, these are decoded again.
"""

from collections.abc import Callable, Iterator, Sequence
import math
import pathlib
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedu_jax.data import decoding_threads
from fedu_jax.data import row_file
from fedu_jax.data.decoding_journal import Done
from fedu_jax.data.decoding_journal import Entry
from fedu_jax.data.decoding_journal import Journal
from fedu_jax.data.image_files import Decoded

_BLOCK = 2**25  # bytes of a block's rows, at most
_FILES = 1024  # of a block, at most


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
      step = max(1, _BLOCK // job.row_bytes)
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


def decode(job: Job, target: Target,
           progress: Callable[[int, int], None]) -> None:
  """Decodes the files that are not done yet.

  Args:
    job: the files.
    target: the place of the rows. When this returns, row i is that of the i-th
      file that was not skipped, `target.done.sums` has a checksum of each row,
      and `target.done.skipped` all files without a row.
    progress: called with (done, total), first with what was done before.

  Raises:
    OSError: the target cannot be written.
    BadInput: the system denies reading a file.
  """
  done = target.done
  waiting = len(done.most) - done.deep
  progress(done.files - waiting, job.files)
  _decode_all(job, target, progress)
  _decode_deep(job, target, progress)
  if done.late:
    _close_up(target)


def depths(job: Job, done: Done) -> np.ndarray:
  """Returns the depth of each owner's images, [owners] i32; 0: none is deep."""
  found = np.zeros(int(job.owners.max(initial=-1)) + 1, np.int32)
  for file, value in done.most.items():
    owner = job.owners[file]
    found[owner] = max(found[owner], 8, value.bit_length())
  return found


Result = tuple[Decoded | str | int, int]  # of a file, and its row's checksum


def _blocks(job: Job, files: Sequence[int], bits: np.ndarray | None
            ) -> Iterator[tuple[Sequence[int], Iterator[tuple[int, Result]]]]:
  """Yields blocks of files, and the results of each in order."""
  def act(file: int) -> Result:
    found = job.decode(file, 0 if bits is None else int(
        bits[job.owners[file]]))
    return found, row_file.sum_of(found.pixels) if isinstance(
        found, Decoded) else 0
  results = decoding_threads.in_order(files, act, job.row_bytes)
  size = max(1, min(_FILES, _BLOCK // job.row_bytes))
  for first in range(0, len(files), size):
    some = files[first:first + size]
    yield some, (next(results) for _ in some)
  for _ in results:  # ends its threads
    pass


def _decode_all(job: Job, target: Target, progress) -> None:
  """Decodes each file once."""
  done = target.done
  for files, results in _blocks(job, range(done.files, job.files), None):
    rows = np.zeros((len(files), *job.row), job.dtype)
    entry: Entry = {'files': len(files), 'skipped': [], 'most': [],
                    'notes': [0, 0, 0], 'sums': []}
    first, before = len(done.sums), len(done.most) - done.deep
    for file, (found, value) in results:
      if isinstance(found, str):
        entry['skipped'].append((file, found))
      else:
        if isinstance(found, int):
          entry['most'].append((file, found))
        else:
          rows[len(entry['sums'])] = found.pixels
          _note(entry, found)
        entry['sums'].append(value)
      progress(file + 1 - before - len(entry['most']), job.files)
    target.write(first, rows[:len(entry['sums'])])
    target.mark(entry)


def _decode_deep(job: Job, target: Target, progress) -> None:
  """Decodes images again whose depth was not known."""
  done, bits = target.done, depths(job, target.done)
  again = sorted(done.most)[done.deep:]
  places = dict(zip(again, _places(done, again)))
  at = job.files - len(again)
  for files, results in _blocks(job, again, bits):
    entry: Entry = {'deep': len(files), 'late': [], 'changed': [],
                    'notes': [0, 0, 0]}
    for file, (found, value) in results:
      if isinstance(found, Decoded):
        target.write(places[file], found.pixels[None])
        entry['changed'].append((places[file], value))
        _note(entry, found)
      else:
        entry['late'].append((file, str(found)))
      at += 1
      progress(at, job.files)
    target.mark(entry)


def _places(done: Done, files: Sequence[int]) -> list[int]:
  """The rows of files that were not skipped."""
  earlier = np.searchsorted(sorted(done.skipped), files)
  return [int(x) for x in np.asarray(files, np.int64) - earlier]


def _note(entry: Entry, found: Decoded) -> None:
  notes = found.pages, found.cropped, found.unseen
  entry['notes'] = [x + y for x, y in zip(entry['notes'], notes)]


def _close_up(target: Target) -> None:
  """Moves rows over those of files that were skipped late."""
  done = target.done
  target.mark({'moving': True})
  kept = np.delete(np.arange(len(done.sums)),
                   _places(done, sorted(done.late))).tolist()
  for to, row in enumerate(kept):
    if to != row:
      target.write(to, target.read(row, 1))
  done.sums = [done.sums[row] for row in kept]
  done.skipped.update(done.late)
  done.late = {}
