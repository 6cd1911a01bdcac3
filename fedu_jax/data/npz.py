"""npz files: a source of data, and arrays that stay in their file."""

import math
import pathlib
import struct
from typing import Any
import zipfile

import numpy as np

from fedu_jax.data import dataset
from fedu_jax.data import reading_report
from fedu_jax.data.dataset import Dataset
from fedu_jax.data.lazy_arrays import Lazy
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput

_LOCAL_HEADER = 30  # bytes of a zip member's header, before its name


def read(what: str, lazy: bool) -> Dataset:
  """Reads the arrays of `dataset.checked`, under these names or Keras's.

  Args:
    what: the path of the file.
    lazy: whether images stay in the file, see `member`.

  Returns:
    The data set.

  Raises:
    BadInput: the file is missing or damaged, or has no arrays of a data set.
  """
  names = {'train_images': 'x_train', 'train_labels': 'y_train',
           'test_images': 'x_test', 'test_labels': 'y_test',
           'owners': 'owners', 'owner_names': 'owner_names'}
  if not pathlib.Path(what).is_file():  # opening a pipe could wait for ever
    raise BadInput(f'data.source npz: there is no file {what}')
  try:
    with open(what, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
      found = {ours: ours if ours in file.files else keras
               for ours, keras in names.items()
               if ours in file.files or keras in file.files}
      host_memory.refuse(sum(
          file.zip.getinfo(f'{theirs}.npy').file_size
          for ours, theirs in found.items()
          if not (lazy and ours.endswith('images'))), what)
      arrays: dict[str, Any] = {
          ours: member(what, theirs)
          if lazy and ours.endswith('images') else file[theirs]
          for ours, theirs in found.items()}
      other = tuple(
          f'{reading_report.shown(name)} (not a name of an array that is read)'
          for name in file.files if name not in found.values())
    if any(isinstance(x, bytes) for x in arrays.values()):
      raise ValueError('a file in it has the name of an array and is none')
  except BadInput:
    raise
  except Exception as error:  # a damaged file can raise any error
    raise BadInput(f'data.source npz: {what} is not a readable npz of plain '
                   f'arrays ({type(error).__name__}: {error})') from error
  if 'train_images' not in arrays:
    raise BadInput(f'data.source npz: {what} has no train_images (or x_train)')
  return dataset.checked(arrays, what, 'npz')._replace(skipped=other)


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
