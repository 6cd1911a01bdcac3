"""Durable files: written as a whole, with checksums, and with locks.

A file's content is on disk before its name is. A crash or a power failure
therefore leaves either the old file or the new one.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil
from typing import NamedTuple

PART = '.part'  # the suffix of unfinished and partly deleted files
_DIGITS = 64  # of a SHA-256 in hexadecimal


class Damaged(Exception):
  """A file is missing or changed; the message names the file and the damage."""


def write(path: pathlib.Path, data: bytes, *, lasting: bool = True) -> None:
  """Writes a file as a whole or not at all; skips a file of equal content.

  Args:
    path: the file, in a folder that exists.
    data: the whole content.
    lasting: whether to wait until the file is on disk; otherwise call `sync`.

  Raises:
    OSError: it cannot be written; an earlier file is unchanged.
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
  """Waits until a file's content, or a folder's names, are on disk."""
  number = os.open(path, os.O_RDONLY)
  try:
    os.fsync(number)
  finally:
    os.close(number)


def remove(path: pathlib.Path) -> None:
  """Removes a file or a folder; ignores failures."""
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    with contextlib.suppress(OSError):
      path.unlink()


def discard(path: pathlib.Path) -> None:
  """Removes a folder, renamed first, so that no part keeps its name."""
  part = path.with_name(f'{path.name}.old{PART}')
  with contextlib.suppress(OSError):
    os.replace(path, part)
    remove(part)


def seal(data: bytes) -> bytes:
  """Appends a checksum, which `unsealed` checks."""
  return data + hashlib.sha256(data).hexdigest().encode()


def unsealed(path: pathlib.Path) -> bytes:
  """Reads a sealed file, checks its checksum, and returns the data.

  Raises:
    Damaged: the file is missing, unreadable or changed.
  """
  try:
    text = path.read_bytes()
  except OSError as error:
    raise Damaged(f'{path} {_how(error)}') from error
  return checked(text, str(path))


def checked(text: bytes, what: str) -> bytes:
  """Returns the data of what `seal` returned.

  Args:
    text: the data and its checksum.
    what: the name of the data, for the message.

  Raises:
    Damaged: it was changed.
  """
  data, sealed = text[:-_DIGITS], text[-_DIGITS:]
  if hashlib.sha256(data).hexdigest().encode() != sealed:
    raise Damaged(f'{what} is not as it was written')
  return data


def write_at(number: int, data: bytes | memoryview, start: int) -> None:
  """Writes all of `data` into an open file, from byte `start` on.

  Raises:
    OSError: it cannot be written; a part of it may be.
  """
  left = memoryview(data)
  while left:
    done = os.pwrite(number, left, start)
    left, start = left[done:], start + done


def digest(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal.

  Raises:
    Damaged: the file is missing or unreadable.
  """
  try:
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise Damaged(f'{path} {_how(error)}') from error


def reason(error: BaseException) -> str:
  """Returns in a few words why something could not be written."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  # Errors of Orbax and TensorStore are long, and contain the system's message.
  text = ' '.join(str(error).split())
  for number in _ADVICE:
    if os.strerror(number) in text:
      return os.strerror(number)
  return text[:200] or type(error).__name__


# What helps, by the system's error number.
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
  """Returns what helps against an error of the system.

  Args:
    told: the error, or a text that contains its `reason`.
  """
  if isinstance(told, OSError) and told.errno in _ADVICE:
    return _ADVICE[told.errno]
  text = str(told)
  return next((what for number, what in _ADVICE.items()
               if os.strerror(number) in text), 'see to it')


class Unwritten(NamedTuple):
  """A failure to write something, after which the program goes on.

  `str` says it for a person: config.json could not be written (No space left
  on device).

  Attributes:
    what: what could not be done, such as 'config.json could not be written'.
    error: the system's error.
    remains: what there is instead; '' if that needs no words.
  """
  what: str
  error: Exception
  remains: str = ''

  def __str__(self) -> str:
    return f'{self.what} ({reason(self.error)})' + (
        f': {self.remains}' if self.remains else '')

  @property
  def advice(self) -> str:
    """What helps, such as 'make room'."""
    return advice(self.error)


def _how(error: OSError) -> str:
  if isinstance(error, FileNotFoundError):
    return 'is missing'
  return f'cannot be read ({error.strerror})'


@contextlib.contextmanager
def held(path: pathlib.Path, *, wait: bool = False,
         signed: bool = False) -> Iterator[bool]:
  """Locks a lock file for the context; the file is created, and stays.

  The operating system frees the lock when its process ends, however it ends.

  Args:
    path: the lock file.
    wait: whether to wait until no other process has the lock.
    signed: whether to write our process id into the file.

  Yields:
    Whether we have the lock.

  Raises:
    OSError: the file cannot be created.
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
      # A file system without locks: all processes count as holders.
    if signed:
      with contextlib.suppress(OSError):  # others report a full disk
        # Without Python's buffer, which would be written again at the end.
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f'process {os.getpid()}'.encode())
    yield True
