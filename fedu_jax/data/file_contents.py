"""Finds files of the same content, by their sizes and then by digests."""

import collections
from collections.abc import Sequence
import hashlib
import pathlib

from fedu_jax.data.reading_report import unreadable

_AT_ONCE = 2**20  # bytes


def same(paths: Sequence[pathlib.Path], others: Sequence[pathlib.Path] = ()
         ) -> tuple[dict[int, int], set[int]]:
  """Compares files. Only files of a size that another has are read.

  Args:
    paths: the files.
    others: files to compare them with.

  Returns:
    The rows of `paths` that have the content of an earlier one, with the row of
    the first; and the rows of those that have the content of one of `others`.

  Raises:
    BadInput: a file cannot be read.
  """
  sizes, theirs = ([_size(x) for x in some] for some in (paths, others))
  often = collections.Counter(sizes)
  shared = {x for x, count in often.items() if count > 1} | (
      often.keys() & set(theirs))
  elsewhere = {_digest(path) for path, size in zip(others, theirs)
               if size in often}
  first: dict[bytes, int] = {}
  again: dict[int, int] = {}
  also: set[int] = set()
  for row, (path, size) in enumerate(zip(paths, sizes)):
    if size in shared:
      digest = _digest(path)
      if first.setdefault(digest, row) != row:
        again[row] = first[digest]
      if digest in elsewhere:
        also.add(row)
  return again, also


def _size(path: pathlib.Path) -> int:
  try:
    return path.stat().st_size
  except OSError as error:
    raise unreadable(path, error) from error


def _digest(path: pathlib.Path) -> bytes:
  digest = hashlib.blake2b(digest_size=16)
  try:
    with open(path, 'rb') as file:
      while block := file.read(_AT_ONCE):
        digest.update(block)
  except OSError as error:
    raise unreadable(path, error) from error
  return digest.digest()
