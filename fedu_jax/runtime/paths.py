"""Paths as users type them: ~ is a home folder, and a URL is an error."""

import os
import pathlib
import re

from fedu_jax.runtime.errors import BadInput

# gs://bucket, hdfs:/x, file:///x. One letter before the colon is no scheme.
_REMOTE = r'[A-Za-z][A-Za-z0-9+.-]+:/'
# The system's limit for a path, less what a run adds to its folder's name.
_LONGEST = 4096 - 256


def typed(text: str, what: str) -> pathlib.Path:
  """Reads a path; expands ~, which shells do not expand in --flag=~/x.

  Args:
    text: the path as it was typed.
    what: the name of the path; the first words of a message.

  Returns:
    The path, with ~ and ~user replaced by home folders. A relative path stays
    relative to the current folder.

  Raises:
    BadInput: the path is empty, remote, in an unknown home folder, or relative
      while the current folder is gone.
  """
  if not text.strip():
    raise BadInput(f'{what} is empty: give the path of a folder or file')
  if '\0' in text:
    raise BadInput(f'{what} has a zero byte, which no path can have')
  if re.match(_REMOTE, text):
    raise BadInput(
        f'{what} is {text}, which is not on a disk of this machine: mount it '
        'and give the path, or copy it here')
  path = pathlib.Path(text)
  try:
    if text.startswith('~'):  # `text`, because Path('./~') begins with ~ too
      path = path.expanduser()
  except RuntimeError as error:
    raise BadInput(
        f'{what} is {text}, and the home folder of '
        f'{"this user" if path.parts[0] == "~" else path.parts[0][1:]} is not '
        'known: give the whole path; ./~ begins one that is called so'
        ) from error
  if not path.is_absolute():
    try:
      os.getcwd()
    except OSError as error:
      raise BadInput(
          f'{what} is {text}, relative to the current folder, which is gone '
          f'({error.strerror}): give the whole path') from error
    if str(path).startswith('~'):  # so that it is not expanded when read again
      return path.absolute()
  return path


def workdir(text: str, what: str = '--workdir') -> pathlib.Path:
  """Reads the path of a folder that runs are written to.

  Raises:
    BadInput: as in `typed`; or the path is too long, or not UTF-8.
  """
  path = typed(text, what)
  try:
    whole = str(path.absolute()).encode()  # as Orbax encodes paths
  except UnicodeEncodeError as error:
    raise BadInput(f'{what} is {ascii(str(path))[1:-1]}, which is not UTF-8, '
                   'as checkpoints need it: choose another') from error
  if len(whole) > _LONGEST:
    raise BadInput(f'{what} is {len(whole):,} bytes long, which leaves no room '
                   f'for names of files: choose one below {_LONGEST:,}')
  return path
