"""What the program finds where it runs: open streams, and folders to keep in.

In containers and on clusters there may be no home folder, no name for the
user's number, nobody at the other end of a stream, and no UTF-8.
"""

import contextlib
import os
import pathlib
import stat
import sys
import tempfile

_OURS = 'fedu_jax'


def open_streams() -> None:
  """Makes stdin, stdout and stderr such that anything can be printed.

  Those that are closed become /dev/null: else the next file that is opened
  would get the number of one, and what is printed would be written into it.
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
  """The user's home folder; None, where nobody can say which it is."""
  try:
    return pathlib.Path.home()
  except RuntimeError:  # no HOME, and no name for the user's number
    return None


def user_cache(name: str) -> pathlib.Path | None:
  """A folder of ours in the user's cache, or else in the temporary folder.

  Args:
    name: of what is kept there.

  Returns:
    Its path, not made yet; None, where neither can be written to.
  """
  usual = _usual()
  if usual and _can_be_written(usual / _OURS / name):
    return usual / _OURS / name
  private = _temporary()
  return private / name if private else None


def cache_note() -> str:
  """Says why `user_cache` is not in the user's cache; '' if it is."""
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
    if path.is_absolute():  # by its standard, others do not count
      return path
  own = home()
  return own / '.cache' if own else None


def _can_be_written(path: pathlib.Path) -> bool:
  """Whether a folder can be made and filled, as far as permissions tell."""
  while not os.path.lexists(path) and path != path.parent:
    path = path.parent
  return path.is_dir() and may(path, os.W_OK | os.X_OK)


def _temporary() -> pathlib.Path | None:
  """A temporary folder that only this user can write to, made if absent.

  Programs that are kept are run: nobody else may put any there.
  """
  try:
    path = pathlib.Path(tempfile.gettempdir(), f'{_OURS}-{os.getuid()}')
    if path.parent == pathlib.Path.cwd():  # Python's last resort, not ours
      return None
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
  except OSError:
    return None
  own = (stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
         and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
  return path if own and may(path, os.W_OK | os.X_OK) else None


def may(path: pathlib.Path, mode: int) -> bool:
  """Whether this process may use a file so, with all rights that it acts by.

  `os.access` alone asks for the user who started the process, without its
  capabilities; a container may give it some.

  Args:
    path: a file or folder.
    mode: os.R_OK, os.W_OK and os.X_OK, joined by |.
  """
  return os.access(path, mode,
                   effective_ids=os.access in os.supports_effective_ids)
