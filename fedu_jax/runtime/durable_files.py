"""Files that are whole or absent, that tell of damage, and that are held.

What lasts is on the disk before its name is, so that it survives the power.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil

PART = '.part'  # ends the names of what is not finished, or half deleted
_DIGITS = 64  # of a SHA-256 in hexadecimal


class Damaged(Exception):
  """A file is not as it was written; the message says which, and how."""


def write(path: pathlib.Path, data: bytes, *, lasting: bool = True) -> None:
  """Writes a file at once or not at all; one that holds the same is left.

  Args:
    path: where; its folder is there.
    data: all of it.
    lasting: wait until it is on the disk; else call `sync`.

  Raises:
    OSError: it cannot be written; what was there before still is.
  """
  with contextlib.suppress(OSError):
    if path.read_bytes() == data:
      return
  part = path.with_name(path.name + PART)
  try:
    with open(part, 'wb') as file:
      file.write(data)
      file.flush()
      if lasting:
        os.fsync(file.fileno())
    os.replace(part, path)
  except OSError:
    remove(part)
    raise
  if lasting:
    sync(path.parent)


def sync(path: pathlib.Path) -> None:
  """Waits until a file, or the names in a folder, are on the disk."""
  number = os.open(path, os.O_RDONLY)
  try:
    os.fsync(number)
  finally:
    os.close(number)


def remove(path: pathlib.Path) -> None:
  """Removes a file or a folder, as far as that can be done."""
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(OSError):
      path.unlink()


def discard(path: pathlib.Path) -> None:
  """Removes a folder, which is under its name as a whole or not at all."""
  part = path.with_name(f'{path.name}.old{PART}')
  with contextlib.suppress(OSError):
    os.replace(path, part)
    remove(part)


def seal(data: bytes) -> bytes:
  """Adds the checksum by which `unsealed` knows damage."""
  return data + hashlib.sha256(data).hexdigest().encode()


def unsealed(path: pathlib.Path) -> bytes:
  """Reads what was sealed when it was written.

  Raises:
    Damaged: the file is absent, or not as it was written.
  """
  try:
    text = path.read_bytes()
  except OSError as error:
    raise Damaged(f'{path} {_how(error)}') from error
  data, sealed = text[:-_DIGITS], text[-_DIGITS:]
  if hashlib.sha256(data).hexdigest().encode() != sealed:
    raise Damaged(f'{path} is not as it was written')
  return data


def digest(path: pathlib.Path) -> str:
  """The SHA-256 of a file, in hexadecimal.

  Raises:
    Damaged: it cannot be read.
  """
  try:
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise Damaged(f'{path} {_how(error)}') from error


def reason(error: BaseException) -> str:
  """Says in a few words why something could not be written."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  # What Orbax and TensorStore raise is long, and holds the system's words.
  text = ' '.join(str(error).split())
  for number in _ADVICE:
    if os.strerror(number) in text:
      return os.strerror(number)
  return text[:200] or type(error).__name__


# What helps, by the system's words. Room is spoken of only where it lacks.
_ADVICE = {
    errno.ENOSPC: 'make room', errno.EDQUOT: 'make room in your quota',
    errno.EFBIG: 'raise the limit of file sizes (ulimit -f)',
    errno.EMFILE: 'raise the limit of open files (ulimit -n)',
    errno.ENFILE: 'close other programs, or raise the limit of open files',
    errno.ENOMEM: 'free memory', errno.EAGAIN: 'raise the limit of processes '
    'and threads (ulimit -u)',
    errno.EACCES: 'get the right to write there',
    errno.EPERM: 'get the right to write there',
    errno.EROFS: 'make that file system writable',
    errno.EIO: 'check the disk', errno.ESTALE: 'mount that file system again',
    errno.ENAMETOOLONG: 'choose a shorter path',
    errno.ENOENT: 'put back what is missing there',
    errno.EEXIST: 'remove the file or link that is in its way',
    errno.ENOTDIR: 'remove the file that is in its way',
    errno.EISDIR: 'remove the folder that is in its way',
    errno.ELOOP: 'mend the links on its path, which lead in a circle'}


def advice(told: object) -> str:
  """Says what helps against an error of the system.

  Args:
    told: the error, or a text that has `reason` of it.
  """
  if isinstance(told, OSError) and told.errno in _ADVICE:
    return _ADVICE[told.errno]
  text = str(told)
  return next((what for number, what in _ADVICE.items()
               if os.strerror(number) in text), 'see to it')


def _how(error: OSError) -> str:
  if isinstance(error, FileNotFoundError):
    return 'is missing'
  return f'cannot be read ({error.strerror})'


@contextlib.contextmanager
def held(path: pathlib.Path, *, wait: bool = False,
         signed: bool = False) -> Iterator[bool]:
  """Holds a lock file, which is made and stays; yields whether we do.

  The lock is the system's, which frees it however its holder ends.

  Args:
    path: of the file.
    wait: until nobody else holds it.
    signed: write our process id into it.

  Raises:
    OSError: the file cannot be made.
  """
  with open(path, 'a+', encoding='utf-8') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
      yield False
      return
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
        raise
      # A file system without locks, where nobody can hold anything.
    if signed:
      with contextlib.suppress(OSError):  # a full disk is told of elsewhere
        # Past the buffer, which would be written again at the end.
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f'process {os.getpid()}'.encode())
    yield True
