"""Arrays of images that are read row by row, when they are indexed."""

from collections.abc import Callable
import math
from typing import Any

import numpy as np


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
    self.nbytes = self.size * self.dtype.itemsize
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


def bytes_in_memory(images: Images) -> int:
  """The bytes of images that are in memory: none of `Lazy` and mapped ones."""
  return 0 if isinstance(images, Lazy | np.memmap) else images.nbytes


def each(fn: Callable[[np.ndarray], np.ndarray], images: Images) -> Images:
  """Applies a function [n, ...] -> [n, ...] to images; to `Lazy` when read.

  The shape and dtype of its results must not depend on the pixels.
  """
  if isinstance(images, np.ndarray):
    return fn(images)
  one = fn(np.zeros((1, *images.shape[1:]), images.dtype))  # reads no image
  return Lazy((len(images), *one.shape[1:]), one.dtype,
              lambda rows: fn(images[rows]))
