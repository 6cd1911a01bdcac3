"""Where decoded arrays are kept, so that a source is decoded once."""

from collections.abc import Callable
import hashlib
import os
import pathlib
import stat
from typing import Any, TypeVar

import numpy as np

from fedu_jax import lazy
from fedu_jax import surroundings
from fedu_jax.lazy import Images

Arrays = TypeVar('Arrays', bound=Any)  # a NamedTuple of arrays, and of absences


def kept(beside: pathlib.Path, name: str, kind: type[Arrays],
         read: Callable[[], Arrays],
         fits: Callable[[Arrays], bool]) -> Arrays:
  """Returns what `read` gives, from a file of an earlier call if there is one.

  The file is not trusted: what of it is damaged, or does not fit, is read from
  the data again. Who may write it may change pixels, as beside it the data's.

  Args:
    beside: the folder of the data, where the file is kept; if that may not be
      written, it is kept in the user's cache.
    name: which of the data's decodings this is.
    kind: what `read` returns; what is no array in it is not kept.
    read: decodes the data.
    fits: whether arrays have the shapes and dtypes that `read` could give.
  """
  path = _file(beside, name)
  if path.is_file():
    try:
      with open(path, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
        found = kind(**file)
      if fits(found):
        return found
    except Exception:  # what a damaged file, or another one, may lead to
      pass
  data = read()
  arrays = {field: x for field, x in data._asdict().items()
            if isinstance(x, np.ndarray)}
  part = path.with_suffix(f'.{os.getpid()}.part')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(part, 'wb') as file:
      np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(part, path)
  except OSError:
    part.unlink(missing_ok=True)  # a full or read-only disk: go on without
  return data


def mapped(beside: pathlib.Path, name: str, kind: type[Arrays],
           read: Callable[[], Arrays],
           fits: Callable[[Arrays], bool]) -> Arrays:
  """As `kept`, but the fields named ...images stay in the file, as `Lazy`.

  Nothing is written: `read` may give `Lazy`, too.
  """
  path = _file(beside, name)
  if path.is_file():
    try:
      with np.load(path, allow_pickle=False) as file:
        labels = {x: file[x] for x in file.files if not x.endswith('images')}
        found = kind(**labels, **{x: lazy.member(path, x) for x in file.files
                                  if x not in labels})
      if fits(found):
        return found
    except Exception:  # as in `kept`
      pass
  return read()


def is_images(images: Images, size: int) -> bool:
  """Whether these are images [N, H, W, 3] u8, of that size unless it is 0."""
  return (images.dtype == np.uint8 and images.ndim == 4
          and images.shape[3] == 3
          and (not size or images.shape[1:3] == (size, size)))


def _file(beside: pathlib.Path, name: str) -> pathlib.Path:
  return _folder(beside.resolve()) / f'.fedu_jax-{name}.npz'


def _folder(beside: pathlib.Path) -> pathlib.Path:
  # A folder that nobody may write to was meant so, even where we are root.
  mode = beside.stat().st_mode
  if mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) and os.access(
      beside, os.W_OK):
    return beside
  return surroundings.user_cache(
      hashlib.sha256(str(beside).encode()).hexdigest()[:16])
