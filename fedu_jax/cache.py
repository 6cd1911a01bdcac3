"""Where decoded arrays are kept, so that a source is decoded once."""

from collections.abc import Callable
import hashlib
import os
import pathlib
import stat
from typing import Any, TypeVar
import zipfile

import numpy as np

from fedu_jax import lazy

Arrays = TypeVar('Arrays', bound=Any)  # a NamedTuple of arrays, and of absences


def user_cache(name: str) -> pathlib.Path:
  """A folder of ours in the user's cache; not made yet."""
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base, 'fedu_jax', name).expanduser()


def kept(beside: pathlib.Path, name: str, kind: type[Arrays],
         read: Callable[[], Arrays]) -> Arrays:
  """Returns what `read` gives, from a file of an earlier call if there is one.

  Args:
    beside: the folder of the data, where the file is kept; if that may not be
      written, it is kept in the user's cache.
    name: which of the data's decodings this is.
    kind: what `read` returns; what is no array in it is not kept.
    read: decodes the data.
  """
  path = _file(beside, name)
  try:
    with open(path, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
      return kind(**file)
  except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile):
    pass  # absent, or cut short when it was written: read the data again
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
           read: Callable[[], Arrays]) -> Arrays:
  """As `kept`, but the fields named ...images stay in the file, as `Lazy`.

  Nothing is written: `read` may give `Lazy`, too.
  """
  path = _file(beside, name)
  try:
    with np.load(path, allow_pickle=False) as file:
      labels = {x: file[x] for x in file.files if not x.endswith('images')}
      return kind(**labels, **{x: lazy.member(path, x) for x in file.files
                               if x not in labels})
  except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile):
    return read()


def _file(beside: pathlib.Path, name: str) -> pathlib.Path:
  return _folder(beside.resolve()) / f'.fedu_jax-{name}.npz'


def _folder(beside: pathlib.Path) -> pathlib.Path:
  # A folder that nobody may write to was meant so, even where we are root.
  mode = beside.stat().st_mode
  if mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) and os.access(
      beside, os.W_OK):
    return beside
  return user_cache(hashlib.sha256(str(beside).encode()).hexdigest()[:16])
