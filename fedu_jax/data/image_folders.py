"""Reads one folder of images for each client, and tells what was not read.

A file that is damaged, or no image of a kind that is read here, is skipped and
counted. What the system does not let us read (a link to nowhere, no permission,
a failing disk) is refused instead: that is no fault of the image, and might be
another answer next time.

Images of more than 8 bits often use fewer bits than their file has. Where the
file does not say how many, and the config does not, all such images of a client
count as of the smallest number of bits that holds the largest value among them.
It is one number for a client, so that its images keep their relations: a dark
one stays dark. Another client may have another camera, and has its own number.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import concurrent.futures
import functools
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from fedu_jax.data import decoded_cache
from fedu_jax.data import folder_listing
from fedu_jax.data import image_files
from fedu_jax.data.image_files import decode, How, Undeclared, Unreadable
from fedu_jax.data.lazy_arrays import Images, Lazy
from fedu_jax.data import reading_report
from fedu_jax.data.reading_report import Files, shown, unreadable
from fedu_jax.runtime.errors import BadInput
from fedu_jax.runtime import host_memory

DEFAULT_SIZE = 32  # pixels, where the config does not say

Progress = Callable[[int, int], None]  # is told how many are done, of how many

_MOST_THREADS = 16
_AHEAD = 64  # files that wait for each thread


class Folders(NamedTuple):
  """What is decoded of a folder, as the cache keeps it."""
  images: Images  # [N, size, size, 3] u8
  owners: np.ndarray  # [N] i32
  skipped: np.ndarray  # [n] i64: rows of the files that are no images
  reasons: np.ndarray  # [n] texts: why
  bits: np.ndarray  # [owners] i32, of images of more than 8; 0: there is none
  # [3] i64: files of several pages, cropped by half, of colours not as seen.
  notes: np.ndarray


def read(root: pathlib.Path, how: How, leave_out: tuple[str, ...], lazy: bool,
         progress: Progress) -> tuple[Folders, tuple[str, ...], Files,
                                      tuple[str, ...]]:
  """Reads all images in the order of their owners' names, then their own.

  Args:
    root: the folder of the owners' folders.
    how: how they are decoded; of size 0, at `DEFAULT_SIZE`.
    leave_out: folders that are not looked into, see `listing`.
    lazy: whether images are decoded only when they are indexed. Nothing can be
      skipped then: hosts that read others' images would not know of it.
    progress: is called while files are decoded.

  Returns:
    The images, the owners' names, what was read and what was not in numbers,
    and in words, 'client/file (reason)'.

  Raises:
    BadInput: there is no owner, or one without a readable image; or a file or
      folder that the system does not let us read, or, if lazy, a file that is
      no image.
  """
  found = folder_listing.listed(root, leave_out, image_files.is_image)
  asked, how = how.size > 0, how._replace(size=how.size or DEFAULT_SIZE)
  task = _Task(root, found, how, asked, progress)
  if not lazy:
    host_memory.refuse(len(task.paths) * how.size**2 * 3,
                       f'{shown(root)} at {how.size} pixels')
  name = f'images-{how.size}' + ''.join(
      f'-{x}' for x in how[1:] if x not in How._field_defaults.values())
  key = root, name, _state(task.paths), Folders
  folders = (decoded_cache.mapped(*key, task.lazily, task.fits) if lazy
             else decoded_cache.kept(*key, task.at_once, task.fits))
  if lazy and len(folders.skipped):
    raise task.unskippable(folders.skipped[0], folders.reasons[0])
  task.refuse_empty(folders)
  names = tuple(shown(owner.name) for owner in found.owners)
  return folders, names, *task.told(folders)


class _Task:
  """What is to be decoded, and how."""

  def __init__(self, root: pathlib.Path, found: folder_listing.Listing,
               how: How, asked: bool, progress: Progress):
    self._root, self._found, self._how = root, found, how
    self._asked, self._progress = asked, progress
    self.paths = [path for mine in found.files for path in mine]
    self._numbers = np.repeat(
        np.arange(len(found.files), dtype=np.int32),
        [len(mine) for mine in found.files])

  def at_once(self) -> Folders:
    """Decodes all, in threads."""
    count, size = len(self.paths), self._how.size
    images = np.empty((count, size, size, 3), np.uint8)
    reasons: dict[int, str] = {}
    notes = np.zeros(3, np.int64)
    most: dict[int, int] = {}  # of each file that needs its owner's bits
    bits = np.zeros(len(self._found.owners), np.int32)

    def put(row, bits):  # at once: what is decoded does not wait in a queue
      result = self._decoded(row, bits)
      if not isinstance(result, image_files.Decoded):
        return result
      images[row] = result.pixels
      return result.pages, result.cropped, result.unseen

    def take(rows, done):
      for row, result in _parallel(
          rows, lambda row: put(row, bits[self._numbers[row]])):
        if isinstance(result, str):
          reasons[row] = result
        elif isinstance(result, int):
          most[row] = result
        else:
          notes[:] += result
        done += 1
        self._progress(done - len(most), count)
    take(range(count), 0)
    for row, value in most.items():
      owner = self._numbers[row]
      bits[owner] = max(bits[owner], 8, value.bit_length())
    again = sorted(most)
    most.clear()
    take(again, count - len(again))
    kept = np.delete(np.arange(count), sorted(reasons))
    for i in np.flatnonzero(kept != np.arange(len(kept))):
      images[i] = images[kept[i]]  # in place: there may be no room for two
    return Folders(
        images[:len(kept)], self._numbers[kept],
        np.array(sorted(reasons), np.int64),
        np.array([reasons[row] for row in sorted(reasons)], str), bits, notes)

  def _decoded(self, row: int, bits: int) -> image_files.Decoded | str | int:
    """An image; or why there is none; or the largest value, if bits lack."""
    try:
      return decode(self.paths[row], self._how, int(bits))
    except Unreadable as error:
      return str(error)
    except Undeclared as error:
      return error.most

  def lazily(self) -> Folders:
    """Decodes rows when they are asked for."""
    size = self._how.size

    @functools.cache
    def bits_of(owner: int) -> int:
      """Asks all images of an owner, which one host alone trains on."""
      rows = np.flatnonzero(self._numbers == owner)
      return max(8, *(x.bit_length() for _, x in _parallel(
          rows, lambda row: self._decoded(row, 0)) if isinstance(x, int)))

    def decode_rows(rows: np.ndarray) -> np.ndarray:
      found = []
      for row, result in _parallel(rows, lambda row: self._decoded(row, 0)):
        if isinstance(result, int):
          result = self._decoded(row, bits_of(int(self._numbers[row])))
        if not isinstance(result, image_files.Decoded):
          raise self.unskippable(row, str(result))
        found.append(result.pixels)
      return np.stack(found)
    return Folders(
        Lazy((len(self.paths), size, size, 3), np.uint8, decode_rows),
        self._numbers, np.array([], np.int64), np.array([], str),
        np.zeros(len(self._found.owners), np.int32), np.zeros(3, np.int64))

  def fits(self, found: Folders) -> bool:
    """Whether arrays are such as `at_once` could give for these files."""
    count = len(self.paths)
    if not (decoded_cache.is_images(found.images, self._how.size)
            and found.skipped.dtype == np.int64 and found.skipped.ndim == 1
            and found.reasons.dtype.kind == 'U'
            and found.reasons.shape == found.skipped.shape
            and found.bits.shape == (len(self._found.owners),)
            and found.bits.dtype == np.int32
            and found.notes.shape == (3,) and found.notes.dtype == np.int64):
      return False
    rows = found.skipped
    if len(rows) and not (0 <= rows[0] and rows[-1] < count
                          and (np.diff(rows) > 0).all()):
      return False
    owners = np.delete(self._numbers, rows)
    return (len(found.images) == len(owners)
            and found.owners.dtype == np.int32
            and np.array_equal(found.owners, owners))

  def unskippable(self, row: int, reason: str) -> BadInput:
    """What is raised where hosts read their own images only."""
    return BadInput(f'data.source folder: {self._shown(self.paths[row])} '
                    f'({reason}) is not a readable image, and several hosts '
                    'skip none: repair or remove it')

  def refuse_empty(self, found: Folders) -> None:
    """Refuses an owner of whom nothing could be read."""
    for i, owner in enumerate(self._found.owners):
      if not (found.owners == i).any():
        n = int(np.flatnonzero(self._numbers[found.skipped] == i)[0])
        one = self._shown(self.paths[found.skipped[n]])
        raise BadInput(
            f'data.source folder: none of the {len(self._found.files[i])} '
            f'images in {shown(owner)} can be read, such as {one} '
            f'({found.reasons[n]}): repair them, or remove the folder')

  def told(self, found: Folders) -> tuple[Files, tuple[str, ...]]:
    """What was read and what was not, in numbers and in words."""
    passed = self._found.passed
    not_read = [(x.path, x.reason, x.folder) for x in passed] + [
        (self.paths[row], str(reason), False)
        for row, reason in zip(found.skipped, found.reasons)]
    files = Files(
        read=len(found.images),
        total=len(self.paths) + sum(not x.folder for x in passed),
        pixels=self._how.size,
        asked=self._asked,
        files=collections.Counter(x.reason for x in passed if not x.folder),
        folders=collections.Counter(x.reason for x in passed if x.folder),
        damaged=tuple(f'{self._shown(self.paths[row])} ({reason})'
                      for row, reason in zip(found.skipped, found.reasons)),
        tests=tuple(map(self._shown, self._found.tests)),
        twice=tuple(map(self._shown, self._found.twice)),
        bits={shown(owner.name): int(x) for owner, x in zip(
            self._found.owners, found.bits) if x},
        pages=int(found.notes[0]), cropped=int(found.notes[1]),
        unseen=int(found.notes[2]))
    return files, tuple(
        f'{self._shown(path)}{"/" * folder} ({reading_report.in_words(reason)})'
        for path, reason, folder in sorted(not_read))

  def _shown(self, path: pathlib.Path) -> str:
    return shown(path.relative_to(self._root))


def _parallel(rows: Sequence[int] | np.ndarray, act: Callable[[int], Any]
              ) -> Iterator[tuple[int, Any]]:
  """Acts on rows in threads; yields rows and results in their order."""
  threads = _threads()
  with (image_files.quiet(),
        concurrent.futures.ThreadPoolExecutor(threads) as pool):
    for first in range(0, len(rows), threads * _AHEAD):
      some = rows[first:first + threads * _AHEAD]
      yield from zip(map(int, some), pool.map(act, some))


def _threads() -> int:
  """How many decode at once: as many as there are cores for this process."""
  return min(_MOST_THREADS, len(os.sched_getaffinity(0)) if hasattr(
      os, 'sched_getaffinity') else os.cpu_count() or 1)


def _state(paths: list[pathlib.Path]) -> str:
  """Changes whenever a file does."""
  try:
    return decoded_cache.state_of(paths)
  except OSError as error:
    raise unreadable(error.filename, error) from error
