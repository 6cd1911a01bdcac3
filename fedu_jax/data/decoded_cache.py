"""Where decoded arrays are kept, so that a source is decoded once."""

from collections.abc import Callable, Iterable
import contextlib
import hashlib
import os
import pathlib
import re
import stat
from typing import Any, TypeVar

import numpy as np

from fedu_jax.data import lazy_arrays
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import machine

Arrays = TypeVar('Arrays', bound=Any)  # a NamedTuple of arrays, and of absences
_PREFIX = '.fedu_jax-'
_STATE = 16  # digits of a state of the data


def state_of(paths: Iterable[pathlib.Path]) -> str:
  """A text that changes whenever one of these files is written or replaced.

  It is made of their paths, sizes and times. The time of the last change
  counts beside that of the content, which copying programs set back.

  Raises:
    OSError: there is no such file, or it cannot be asked about.
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
  """Returns what `read` gives, from a file of an earlier call if there is one.

  The file is not trusted: what of it is damaged, or does not fit, is read from
  the data again. Who may write it may change pixels, as beside it the data's.
  A new file replaces those of earlier states, and what a kill left unfinished.

  Args:
    beside: the folder of the data, where the file is kept; if that may not be
      written, it is kept in the user's cache.
    name: which of the data's decodings this is.
    state: of the data, as `state_of` gives it: another one is read anew.
    kind: what `read` returns; what is no array in it is not kept.
    read: decodes the data.
    fits: whether arrays have the shapes and dtypes that `read` could give.
  """
  def load(path):
    with open(path, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
      return kind(**file)
  beside = beside.resolve()
  if (found := _found(beside, name, state, load, fits)) is not None:
    return found
  data = read()
  path = _folder(beside) / _file(name, state)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(beside, name, keep=path)
    _write(path, {field: x for field, x in data._asdict().items()
                  if isinstance(x, np.ndarray)})
  except OSError:
    pass  # a full or read-only disk: go on without
  return data


def mapped(beside: pathlib.Path, name: str, state: str, kind: type[Arrays],
           read: Callable[[], Arrays],
           fits: Callable[[Arrays], bool]) -> Arrays:
  """As `kept`, but the fields named ...images stay in the file, as `Lazy`.

  Nothing is written: `read` may give `Lazy`, too.
  """
  def load(path):
    with np.load(path, allow_pickle=False) as file:
      labels = {x: file[x] for x in file.files if not x.endswith('images')}
      return kind(**labels, **{x: lazy_arrays.member(path, x)
                               for x in file.files if x not in labels})
  found = _found(beside.resolve(), name, state, load, fits)
  return read() if found is None else found


def is_images(images: Images, size: int) -> bool:
  """Whether these are images [N, H, W, 3] u8, of that size unless it is 0."""
  return (images.dtype == np.uint8 and images.ndim == 4
          and images.shape[3] == 3
          and (not size or images.shape[1:3] == (size, size)))


def _found(beside: pathlib.Path, name: str, state: str,
           load: Callable[[pathlib.Path], Arrays],
           fits: Callable[[Arrays], bool]) -> Arrays | None:
  """What a file of this state holds, wherever it is kept; None: nothing."""
  for folder in _folders(beside):
    path = folder / _file(name, state)
    try:
      if path.is_file() and fits(found := load(path)):
        return found
    except MemoryError:
      raise
    except Exception:  # what a damaged file, or another one, may lead to
      pass
  return None


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes a file at once or not at all; its part is held while it grows."""
  part = path.with_name(f'{path.stem}.{os.getpid()}{durable_files.PART}')
  try:
    with durable_files.held(part) as ours:
      if not ours:
        return  # a process of our number, in another container
      with open(part, 'wb') as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
      os.replace(part, path)
  except OSError:
    part.unlink(missing_ok=True)
    raise


def _tidy(beside: pathlib.Path, name: str, *, keep: pathlib.Path) -> None:
  """Removes what was kept of other states of the data, under this name only.

  A file that another process is reading stays readable to it. Parts that a
  living process holds stay.
  """
  # Before there were states, a name alone stood there.
  ours = (rf'{re.escape(_PREFIX + name)}(-[0-9a-f]{{{_STATE}}})?'
          rf'(\.npz|\.[0-9]+{re.escape(durable_files.PART)})')
  for folder in _folders(beside):
    with contextlib.suppress(OSError):
      for path in folder.iterdir() if _may_write(folder) else ():
        if path != keep and re.fullmatch(ours, path.name):
          with contextlib.suppress(OSError):
            _remove(path)


def _remove(path: pathlib.Path) -> None:
  if path.suffix != durable_files.PART:
    path.unlink()
    return
  with durable_files.held(path) as free:
    if free:
      path.unlink()


def _file(name: str, state: str) -> str:
  return f'{_PREFIX}{name}-{state}.npz'


def _folders(beside: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """Where files of this data may be: with it, and in the user's cache."""
  return beside, machine.user_cache(
      hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]) or beside


def _folder(beside: pathlib.Path) -> pathlib.Path:
  """Where a new file goes."""
  with_data, in_cache = _folders(beside)
  return with_data if _may_write(with_data) else in_cache


def _may_write(folder: pathlib.Path) -> bool:
  # A folder that nobody may write to was meant so, even where we are root.
  return bool(folder.stat().st_mode & (
      stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)) and machine.may(
          folder, os.W_OK)
