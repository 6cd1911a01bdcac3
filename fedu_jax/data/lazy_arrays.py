"""Images that are read row by row, and only when they are asked for."""

from collections.abc import Callable
import math
import pathlib
import struct
from typing import Any
import zipfile

import numpy as np

_LOCAL_HEADER = 30  # bytes of a zip member's, before its name


class Lazy:
  """Stands for an array [N, ...] whose rows are read when it is indexed."""

  def __init__(self, shape: tuple[int, ...], dtype: Any,
               read: Callable[[np.ndarray], np.ndarray]):
    """Takes the array's shape and dtype, and what reads rows [n] of it."""
    self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
    self.size = math.prod(shape)
    self._read = read

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, rows: Any) -> np.ndarray:
    wanted = np.arange(len(self))[rows]
    if not wanted.size:
      return np.zeros((0, *self.shape[1:]), self.dtype)
    found = self._read(wanted.reshape(-1))
    return found.reshape(*wanted.shape, *self.shape[1:])

  def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
    del copy  # each reading is one
    return self[:].astype(dtype or self.dtype, copy=False)

  def take(self, rows: np.ndarray) -> 'Lazy':
    """Stands for some of the rows, which are not read yet."""
    return Lazy((len(rows), *self.shape[1:]), self.dtype,
                lambda wanted: self[rows[wanted]])


Images = np.ndarray | Lazy


def each(fn: Callable[[np.ndarray], np.ndarray], images: Images) -> Images:
  """Applies [n, ...] -> [n, ...] to all rows, to those of `Lazy` when read."""
  if isinstance(images, np.ndarray):
    return fn(images)
  one = fn(images[:1])
  return Lazy((len(images), *one.shape[1:]), one.dtype,
              lambda rows: fn(images[rows]))


def member(path: pathlib.Path | str, name: str) -> Lazy:
  """An array in an npz file, as np.savez writes it.

  It is mapped into memory. One that is compressed cannot be: each reading
  passes over it, and keeps the rows that are wanted.

  Args:
    path: the file.
    name: the array's, which has at least one axis.

  Raises:
    ValueError: it is no plain array in C order, or cut short.
    KeyError: there is none of this name.
    OSError, zipfile.BadZipFile: the file cannot be read.
  """
  with zipfile.ZipFile(path) as archive:
    info = archive.getinfo(f'{name}.npy')
    with archive.open(info) as file:
      version = np.lib.format.read_magic(file)
      header = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                else np.lib.format.read_array_header_2_0)
      shape, fortran, dtype = header(file)
      start = file.tell()
  if fortran or dtype.hasobject or not shape:
    raise ValueError(f'{name} is not a plain array in C order')
  # In whole numbers: a header may say anything, and NumPy's would overflow.
  size = dtype.itemsize * math.prod(shape[1:])
  if start + size * shape[0] != info.file_size:
    raise ValueError(f'{name} is not as long as its shape {shape} says')
  if info.compress_type == zipfile.ZIP_STORED:
    with open(path, 'rb') as raw:
      raw.seek(info.header_offset)
      lengths = struct.unpack('<HH', raw.read(_LOCAL_HEADER)[-4:])
    mapped = np.memmap(
        path, dtype, 'r', shape=shape,
        offset=info.header_offset + _LOCAL_HEADER + sum(lengths) + start)
    return Lazy(shape, dtype, lambda rows: np.asarray(mapped[rows]))
  def read(rows):
    wanted, places = np.unique(rows, return_inverse=True)
    found = np.empty((len(wanted), *shape[1:]), dtype)
    with zipfile.ZipFile(path) as archive, archive.open(info) as file:
      for i, row in enumerate(wanted):
        file.seek(start + int(row) * size)  # forward: reads what lies between
        found[i] = np.frombuffer(file.read(size), dtype).reshape(shape[1:])
    return found[places.reshape(-1)]
  return Lazy(shape, dtype, read)
