"""The machine that the program runs on: streams, home and cache folders.

In containers and on clusters there may be no home folder, no name for the user
id, no reader of a stream, and no UTF-8.
"""

import contextlib
import os
import pathlib
import stat
import sys
import tempfile

_OURS = 'fedu_jax'


def open_streams() -> None:
  """Makes stdin, stdout and stderr safe to use.

  A closed stream becomes /dev/null. Otherwise the next file that is opened
  would get its number, and printed lines would be written into that file.
  Characters that a stream's encoding lacks are printed as escapes.
  """
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    stream = getattr(sys, name)
    if stream is None:
      file = os.open(os.devnull, os.O_RDWR)
      os.set_inheritable(file, True)
      stream = open(file, 'w' if number else 'r', encoding='utf-8')
      setattr(sys, name, stream)
    if number and hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='backslashreplace')


def home() -> pathlib.Path | None:
  """Returns the user's home folder; None if it is unknown."""
  try:
    return pathlib.Path.home()
  except RuntimeError:  # no HOME, and no name for the user id
    return None


def user_cache(name: str) -> pathlib.Path | None:
  """Returns our folder in the user's cache, or else in the temporary folder.

  Args:
    name: the name of the folder.

  Returns:
    The path, not created yet; None if neither place is writable.
  """
  usual = _usual()
  if usual and _can_be_written(usual / _OURS / name):
    return usual / _OURS / name
  private = _temporary()
  return private / name if private else None


def cache_note() -> str:
  """Returns why `user_cache` is not in the user's cache; '' if it is."""
  usual = _usual()
  if usual and _can_be_written(usual / _OURS):
    return ''
  why = (f'{usual} cannot be written to' if usual
         else 'the user has no home folder')
  private = _temporary()
  return f'{why}: ' + (f'caches are kept in {private}' if private else
                       'nothing is kept in a cache')


def _usual() -> pathlib.Path | None:
  given = os.environ.get('XDG_CACHE_HOME', '')
  with contextlib.suppress(RuntimeError):
    path = pathlib.Path(given).expanduser()
    if path.is_absolute():  # the standard ignores relative paths
      return path
  own = home()
  return own / '.cache' if own else None


def _can_be_written(path: pathlib.Path) -> bool:
  """Whether permissions allow to create and fill a folder."""
  while not os.path.lexists(path) and path != path.parent:
    path = path.parent
  return path.is_dir() and may(path, os.W_OK | os.X_OK)


def _temporary() -> pathlib.Path | None:
  """A temporary folder that only this user can write to; created if absent.

  Cached programs are executed, so no other user may put one there.
  """
  try:
    path = pathlib.Path(tempfile.gettempdir(), f'{_OURS}-{os.getuid()}')
    if path.parent == pathlib.Path.cwd():  # Python's fallback; not wanted here
      return None
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
  except OSError:
    return None
  own = (stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
         and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
  return path if own and may(path, os.W_OK | os.X_OK) else None


def may(path: pathlib.Path, mode: int) -> bool:
  """Whether this process has permissions for a file, by its effective rights.

  `os.access` by default checks the user who started the process, without the
  capabilities that a container may add.

  Args:
    path: a file or folder.
    mode: os.R_OK, os.W_OK and os.X_OK, joined by |.
  """
  return os.access(path, mode,
                   effective_ids=os.access in os.supports_effective_ids)
