"""A cache of decoded arrays on disk, so that a source is decoded once."""

from collections.abc import Callable, Iterable
import contextlib
import hashlib
import os
import pathlib
import re
import stat
from typing import Any, TypeVar

import numpy as np

from fedu_jax.data import npz
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import machine

Arrays = TypeVar('Arrays', bound=Any)  # a NamedTuple of arrays or None
_PREFIX = '.fedu_jax-'
_JOURNAL = '.journal'
_STATE = 16  # digits of the hash that `state_of` returns


def state_of(paths: Iterable[pathlib.Path]) -> str:
  """Returns a text that changes when one of these files is changed.

  It is a hash of paths, sizes, and times of the last change of content (mtime)
  and of the file's record (ctime). Programs that copy files may set mtime back,
  but not ctime.

  Raises:
    OSError: a file is missing, or its state cannot be read.
  """
  digest = hashlib.sha256()
  for path in paths:
    found = path.stat()
    digest.update(os.fsencode(path) + b' %d %d %d\n' % (
        found.st_size, found.st_mtime_ns, found.st_ctime_ns))
  return digest.hexdigest()[:_STATE]


def kept(beside: pathlib.Path, name: str, state: str, kind: type[Arrays],
         read: Callable[[], Arrays],
         fits: Callable[[Arrays], bool]) -> Arrays:
  """Returns decoded data from the cache, or decodes it and fills the cache.

  A cache file that is damaged or does not fit is ignored, and the data is
  decoded again. A new file replaces those of earlier states of the data and
  unfinished files of killed processes.

  Args:
    beside: the folder of the data, where the cache file is kept. If it is not
      writable, the file is kept in the user's cache.
    name: the name of this decoding of the data.
    state: the state of the data, from `state_of`. A file of another state is
      not used.
    kind: the NamedTuple that `read` returns. Only its arrays are kept.
    read: decodes the data.
    fits: whether cached arrays have shapes and dtypes that `read` could return.

  Returns:
    The decoded arrays.
  """
  def load(path):
    with open(path, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
      return kind(**file)
  beside, file = beside.resolve(), file_name(name, state, '.npz')
  if (before := found(beside, file, load, fits)) is not None:
    return before
  data = read()
  path = folder_of(beside) / file
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(beside, name, keep=path)
    _write(path, {field: x for field, x in data._asdict().items()
                  if isinstance(x, np.ndarray)})
  except OSError:
    pass  # a full or read-only disk: go on without a cache
  return data


def mapped(beside: pathlib.Path, name: str, state: str, kind: type[Arrays],
           read: Callable[[], Arrays],
           fits: Callable[[Arrays], bool]) -> Arrays:
  """Returns decoded data as `kept` does, with fields ...images as `Lazy`.

  The images stay in the cache file until they are indexed. This function writes
  no cache file, because `read` may return `Lazy` too.
  """
  def load(path):
    with np.load(path, allow_pickle=False) as file:
      labels = {x: file[x] for x in file.files if not x.endswith('images')}
      return kind(**labels, **{x: npz.member(path, x)
                               for x in file.files if x not in labels})
  before = found(beside.resolve(), file_name(name, state, '.npz'), load, fits)
  return read() if before is None else before


def is_images(images: Images, size: int) -> bool:
  """Whether `images` are [N, H, W, 3] u8, with H = W = size if it is not 0."""
  return (images.dtype == np.uint8 and images.ndim == 4
          and images.shape[3] == 3
          and (not size or images.shape[1:3] == (size, size)))


def found(beside: pathlib.Path, file: str,
          load: Callable[[pathlib.Path], Arrays],
          fits: Callable[[Arrays], bool]) -> Arrays | None:
  """Loads a cache file from either folder.

  Args:
    beside: the folder of the data, resolved.
    file: the name of the file, from `file_name`.
    load: reads a file.
    fits: whether what was read can be right.

  Returns:
    What `load` returns; None if there is no file, or a damaged one.
  """
  for folder in _folders(beside):
    path = folder / file
    try:
      if path.is_file() and fits(arrays := load(path)):
        return arrays
    except MemoryError:
      raise
    except Exception:  # a damaged or foreign file can raise any error
      pass
  return None


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes a file as a whole or not at all; locks its part while writing."""
  part = path.with_name(f'{path.stem}.{os.getpid()}{durable_files.PART}')
  try:
    with durable_files.held(part) as ours:
      if not ours:
        return  # another container has a process with our process id
      with open(part, 'wb') as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
      os.replace(part, path)
  except OSError:
    part.unlink(missing_ok=True)
    raise


def tidy(beside: pathlib.Path, name: str, *, keep: pathlib.Path) -> None:
  """Removes cache files of this name for other states of the data.

  A process that is reading such a file can go on. Parts that a running process
  has locked stay.

  Args:
    beside: the folder of the data, resolved.
    name: the name of the decoding.
    keep: the cache file that stays, with its part and its journal.
  """
  part = re.escape(durable_files.PART)
  # File names of earlier versions have no state, and parts a process id.
  ours = (rf'{re.escape(_PREFIX + name)}(-[0-9a-f]{{{_STATE}}})?'
          rf'(\.npz|\.npy|\.npy{part}|\.npy{_JOURNAL}|\.[0-9]+{part})')
  for folder in _folders(beside):
    with contextlib.suppress(OSError):
      for path in folder.iterdir() if _may_write(folder) else ():
        if re.fullmatch(ours, path.name) and path not in (
            keep, part_of(keep), journal_of(keep)):
          with contextlib.suppress(OSError):
            _remove(path)


def _remove(path: pathlib.Path) -> None:
  kept, ending = path.with_suffix(''), path.suffix
  if ending == _JOURNAL or kept.suffix == '.npy':
    with durable_files.held(journal_of(kept)) as free:
      if free:
        part_of(kept).unlink(missing_ok=True)
        journal_of(kept).unlink()
  elif ending == durable_files.PART:
    with durable_files.held(path) as free:
      if free:
        path.unlink()
  else:
    path.unlink()


def file_name(name: str, state: str, ending: str) -> str:
  """The name of a cache file."""
  return f'{_PREFIX}{name}-{state}{ending}'


def part_of(path: pathlib.Path) -> pathlib.Path:
  """The unfinished file of a cache file that is made in several starts."""
  return path.with_name(path.name + durable_files.PART)


def journal_of(path: pathlib.Path) -> pathlib.Path:
  """The journal of that file, which has its lock."""
  return path.with_name(path.name + _JOURNAL)


def _folders(beside: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """The folders of cache files: that of the data, and the user's cache."""
  return beside, machine.user_cache(
      hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]) or beside


def folder_of(beside: pathlib.Path) -> pathlib.Path:
  """The folder for a new cache file; `beside` is resolved."""
  with_data, in_cache = _folders(beside)
  return with_data if _may_write(with_data) else in_cache


def _may_write(folder: pathlib.Path) -> bool:
  # A folder without any write permission is read-only on purpose, for root too.
  return bool(folder.stat().st_mode & (
      stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)) and machine.may(
          folder, os.W_OK)
