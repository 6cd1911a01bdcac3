"""Locks a run's folder for one process, and checks that its config matches."""

from collections.abc import Iterator
import contextlib
import errno
import json
import os
import pathlib
from typing import Any

from fedu_jax.data import sources
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import json_files
from fedu_jax.runtime import machine
from fedu_jax.runtime import multihost
from fedu_jax.runtime import paths
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import config_changes
from fedu_jax.training.config import checks
from fedu_jax.training.config.config_dict import Config

_LOCK = '.lock'  # locked by the process of the run; the file stays
# Files of a start that was killed before it wrote its config.
_FIRST = _LOCK, 'config.json' + durable_files.PART


def claim(folder: pathlib.Path, config: Config, *,
          extend: bool = False) -> pathlib.Path:
  """Checks that a folder is free, or belongs to a run of this config.

  Fields that say where a run runs may differ.

  Args:
    folder: the run's folder; it may be absent.
    config: the run's config.
    extend: whether the config may have more rounds than the run had before.

  Raises:
    BadInput: the folder belongs to another config or another process; it cannot
      be created or written; or its name has characters that TensorStore takes
      for a pattern.
  """
  if wrong := sorted(set(str(folder.absolute())) & set('[]*?\\')):
    raise BadInput(f'--workdir {folder} has {" ".join(wrong)} in its name, '
                   'which TensorStore takes for a pattern: choose another')
  _check(folder, config, extend)
  if multihost.first():
    _see_it_can_be_made(folder)
    if (folder / _LOCK).exists():
      with _locked(folder, signed=False):
        pass
  return folder


def clients_on_disk(folder: pathlib.Path) -> bool:
  """Whether the clients of the run in a folder are stored in files."""
  return (folder / 'clients').is_dir()


@contextlib.contextmanager
def held(folder: pathlib.Path, config: Config, *,
         extend: bool = False) -> Iterator[list[str]]:
  """Locks a folder for a run of this config.

  Args:
    folder: the run's folder.
    config: the run's config.
    extend: as in `claim`.

  Yields:
    Lines that say which values of the config have changed.

  Raises:
    BadInput: as in `claim`, or the folder cannot be written.
  """
  with _locked(folder, signed=True):
    before = _check(folder, config, extend)  # another process may have begun
    own, lines = _own(config), []
    try:
      if before:
        if config_changes.clears_scores(before, own):
          durable_files.remove(folder / 'evaluation.json')
        if before['rounds'] < own['rounds']:
          lines.append(config_changes.extend(folder, before, own))
        if text := config_changes.told(before | {'rounds': own['rounds']}, own):
          lines.append(f'goes on with another config: {text}')
      json_files.write(folder / 'config.json', own)
    except OSError as error:
      raise _unusable(folder, error) from error
    yield lines


@contextlib.contextmanager
def _locked(folder: pathlib.Path, *, signed: bool) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      free = stack.enter_context(
          durable_files.held(folder / _LOCK, signed=signed))
    except OSError as error:
      raise _unusable(folder, error) from error
    if not free:
      raise BadInput(f'another process is at {folder} '
                     f'({(folder / _LOCK).read_text() or "unknown"}): wait for '
                     'its end, or choose another --workdir')
    yield


def _check(folder: pathlib.Path, config: Config,
           extend: bool) -> config_changes.Flat | None:
  """Does the checks of `claim` except for the lock.

  Returns:
    The config in the folder, without the fields of `checks.PLACES`; None if
    there is none.
  """
  path = folder / 'config.json'
  theirs = None
  try:
    if path.exists():
      theirs = json.loads(path.read_text())
      if not isinstance(theirs, dict):
        raise ValueError(f'{path} is no config')
      theirs = _kept(checks.complete(theirs))
      config_changes.check(folder, theirs, _own(config), extend=extend)
      on_disk = clients_on_disk(folder)
      saved = any((folder / 'checkpoints').glob('*'))
      if config.store not in ('auto', 'disk') if on_disk else (
          config.store == 'disk' and saved):
        raise BadInput(
            f'the clients of {folder} {"are" if on_disk else "are not"} on '
            'disk: set config.store to auto')
    elif folder.is_dir() and any(p.name not in _FIRST
                                 for p in folder.iterdir()):
      raise BadInput(f'{folder} is not empty and not a run of ours: choose '
                     'another --workdir')
  except BadInput:
    raise
  except (OSError, ValueError) as error:
    raise _unusable(folder, error) from error
  return theirs


def _see_it_can_be_made(folder: pathlib.Path) -> None:
  """Checks that a folder can be created and written.

  Raises:
    BadInput: a file is in the way, or the permission to write is missing.
  """
  top = folder.absolute()
  while not os.path.lexists(top):
    top = top.parent
  number = 0
  if not top.is_dir():
    number = errno.EEXIST if top == folder.absolute() else errno.ENOTDIR
  elif not machine.may(top, os.W_OK | os.X_OK):
    read_only = os.statvfs(top).f_flag & os.ST_RDONLY
    number = errno.EROFS if read_only else errno.EACCES
  if number:
    raise _unusable(folder, OSError(number, os.strerror(number)))


def _own(config: Config) -> dict[str, Any]:
  """The flat config without the fields that say where a run runs."""
  return _kept(checks.flatten(config))


def _kept(flat: dict[str, Any]) -> dict[str, Any]:
  """A flat config without `checks.PLACES`, and with absolute paths."""
  kept = {name: value for name, value in flat.items()
          if name not in checks.PLACES}
  for name in ('data.source', 'data.test'):
    if isinstance(source := kept.get(name), str):
      kept[name] = sources.absolute(source)
  if file := kept.get('model.init_from'):
    kept['model.init_from'] = str(
        paths.typed(file, 'config.model.init_from').absolute())
  return kept


def _unusable(folder: pathlib.Path, error: Exception) -> BadInput:
  why = durable_files.reason(error)
  mend = (f'{durable_files.advice(error)}, or ' if isinstance(error, OSError)
          else '')
  return BadInput(f'--workdir {folder} cannot be used ({why}): {mend}choose '
                  'another')
