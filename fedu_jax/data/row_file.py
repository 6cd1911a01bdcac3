"""Files of rows [N, ...] that stay on disk, with a checksum for each row.

A file is in NumPy's npy format, so that `np.load(path, mmap_mode='r')` opens
the rows. After the rows it has a footer: small arrays and the CRC-32 of each
row, with a checksum of their own. Rows are read with `pread`, not mapped: a
file that is cut short, or a disk that fails, then raises an error. With mapped
memory the system would kill the process.
"""

import io
import math
import os
import pathlib
from typing import Any
import weakref
import zlib

import numpy as np

from fedu_jax.data.lazy_arrays import Lazy
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput

_SUMS = 'sums'  # the footer's array of checksums, [N] u32


def sum_of(row: np.ndarray) -> int:
  """Returns the checksum of a row, which is in C order."""
  return zlib.crc32(row.data)


class Part:
  """An unfinished file. Rows are written in any order, at their own places.

  Two processes that write the same rows do not harm each other.
  """

  def __init__(self, path: pathlib.Path, row: tuple[int, ...], dtype: Any,
               lasting: bool):
    """Opens or creates the file.

    Args:
      path: the file.
      row: the shape of a row.
      dtype: the dtype of all rows.
      lasting: whether to wait until rows are on disk. A file that a power
        failure damages is noticed in any case.

    Raises:
      OSError: it cannot be opened.
    """
    self._path, self._lasting = path, lasting
    self._row, self._dtype = row, np.dtype(dtype)
    self._start = len(_header((0, *row), self._dtype))
    self._bytes = self._dtype.itemsize * math.prod(row)
    self._number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

  def write(self, first: int, rows: np.ndarray) -> None:
    """Writes rows [n, ...] from row `first` on.

    Raises:
      OSError: the disk is full, or fails.
    """
    durable_files.write_at(self._number, _flat(rows),
                           self._start + first * self._bytes)

  def read(self, first: int, count: int) -> np.ndarray:
    """Reads rows; those behind the end of the file are left out."""
    rows = np.empty((count, *self._row), self._dtype)
    got = _read(self._number, rows, self._start + first * self._bytes)
    return rows[:got // self._bytes]

  def sync(self) -> None:
    """Waits until all rows are on disk, if they are to last."""
    if self._lasting:
      os.fsync(self._number)

  def finish(self, path: pathlib.Path, sums: np.ndarray,
             arrays: dict[str, np.ndarray]) -> None:
    """Adds the header and the footer, and gives the file its final name.

    Args:
      path: the final name, in the same folder.
      sums: the checksum of each row, [N] u32. Later rows are cut off.
      arrays: small arrays for the footer.

    Raises:
      OSError: the disk is full, or fails.
    """
    footer = io.BytesIO()
    # mypy takes the names of the arrays for np.savez's own arguments.
    np.savez(footer, **{_SUMS: sums}, **arrays)  # type: ignore[arg-type]
    sealed = durable_files.seal(footer.getvalue())
    end = self._start + len(sums) * self._bytes
    header = _header((len(sums), *self._row), self._dtype)
    durable_files.write_at(self._number, header, 0)
    durable_files.write_at(self._number, sealed, end)
    os.ftruncate(self._number, end + len(sealed))
    self.sync()
    os.replace(self._path, path)
    if self._lasting:
      durable_files.sync(path.parent)

  def close(self) -> None:
    os.close(self._number)


def opened(path: pathlib.Path) -> tuple[Lazy, dict[str, np.ndarray]]:
  """Opens a finished file.

  The rows are read when they are indexed, and their checksums are checked. A
  damaged file is then removed, so that the next start makes it again.

  Args:
    path: the file.

  Returns:
    The rows, and the other arrays of the footer. Reading a row raises BadInput
    if it is damaged or cannot be read.

  Raises:
    ValueError, durable_files.Damaged: it is no such file, or it is damaged.
    OSError: it cannot be read.
  """
  with open(path, 'rb', buffering=0) as file:
    if np.lib.format.read_magic(file) != (1, 0):
      raise ValueError('another version of the format')
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject or not shape:
      raise ValueError('not a plain array in C order')
    start, size = file.tell(), dtype.itemsize * math.prod(shape[1:])
    file.seek(start + size * shape[0])
    footer = durable_files.checked(file.read(), str(path))
    with np.load(io.BytesIO(footer), allow_pickle=False) as found:
      arrays = dict(found)
    sums = arrays.pop(_SUMS)
    if sums.shape != shape[:1] or sums.dtype != np.uint32:
      raise ValueError('another number of rows than of checksums')
    number = os.dup(file.fileno())

  def read(wanted: np.ndarray) -> np.ndarray:
    rows = np.empty((len(wanted), *shape[1:]), dtype)
    # Neighbours are read together.
    breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
    for first, last in zip([0, *breaks], [*breaks, len(wanted)]):
      _read_or_end(number, path, rows[first:last],
                   start + int(wanted[first]) * size)
    for row, i in zip(rows, wanted):
      if sum_of(row) != sums[i]:
        durable_files.remove(path)
        raise _changed(path)
    return rows
  images = Lazy(shape, dtype, read)
  weakref.finalize(images, os.close, number)
  return images, arrays


def _read_or_end(number: int, path: pathlib.Path, rows: np.ndarray,
                 start: int) -> None:
  """Fills `rows`, or ends the program in one line."""
  try:
    got = _read(number, rows, start)
  except OSError as error:
    raise BadInput(f'{path} cannot be read ({durable_files.reason(error)}): '
                   f'{durable_files.advice(error)}') from error
  if got < rows.nbytes:
    durable_files.remove(path)
    raise _changed(path)


def _changed(path: pathlib.Path) -> BadInput:
  return BadInput(f'{path}, a cache of decoded images, was damaged and is now '
                  'removed: start again, and the images are decoded again')


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
  """The header of an npy file; its length is the same for any N."""
  found = io.BytesIO()
  np.lib.format.write_array_header_1_0(found, {
      'descr': np.lib.format.dtype_to_descr(dtype), 'fortran_order': False,
      'shape': shape})
  return found.getvalue()


def _flat(rows: np.ndarray) -> Any:
  """The bytes of an array in C order, as a memoryview."""
  return rows.reshape(-1).view(np.uint8).data


def _read(number: int, rows: np.ndarray, start: int) -> int:
  """Fills `rows` from a file; returns the bytes read, fewer at its end."""
  left, got = _flat(rows), 0
  while left and (done := os.preadv(number, [left], start + got)):
    left, got = left[done:], got + done
  return got
