"""Arrays of images that are read row by row, when they are indexed."""

from collections.abc import Callable
import math
import pathlib
import struct
from typing import Any
import zipfile

import numpy as np

_LOCAL_HEADER = 30  # bytes of a zip member's header, before its name


class Lazy:
  """An array [N, ...] that reads rows when it is indexed."""

  def __init__(self, shape: tuple[int, ...], dtype: Any,
               read: Callable[[np.ndarray], np.ndarray]):
    """Makes the array.

    Args:
      shape: the shape, [N, ...].
      dtype: the dtype.
      read: (row numbers [n]) -> rows [n, ...].
    """
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
    del copy  # each reading makes a copy
    return self[:].astype(dtype or self.dtype, copy=False)

  def take(self, rows: np.ndarray) -> 'Lazy':
    """Selects rows, without reading them."""
    return Lazy((len(rows), *self.shape[1:]), self.dtype,
                lambda wanted: self[rows[wanted]])


Images = np.ndarray | Lazy


def each(fn: Callable[[np.ndarray], np.ndarray], images: Images) -> Images:
  """Applies a function [n, ...] -> [n, ...] to images; to `Lazy` when read."""
  if isinstance(images, np.ndarray):
    return fn(images)
  one = fn(images[:1])
  return Lazy((len(images), *one.shape[1:]), one.dtype,
              lambda rows: fn(images[rows]))


def member(path: pathlib.Path | str, name: str) -> Lazy:
  """Opens an array in an npz file, as np.savez writes it.

  The array is mapped into memory. A compressed array cannot be mapped: each
  reading decompresses it up to the last row that is needed.

  Args:
    path: the file.
    name: the name of the array, which needs at least one axis.

  Returns:
    The array.

  Raises:
    ValueError: it is no plain array in C order, or it is cut short.
    KeyError: the file has no array of this name.
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
  # In Python's integers: NumPy's would overflow on a damaged header.
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
        file.seek(start + int(row) * size)  # reads all bytes up to there
        found[i] = np.frombuffer(file.read(size), dtype).reshape(shape[1:])
    return found[places.reshape(-1)]
  return Lazy(shape, dtype, read)
