"""Reads one folder of images for each client, and reports what was not read.

A file that is damaged or of an unsupported format is skipped and counted. A
file that the system cannot read (a link without a target, no permission, a
failing disk) is an error, because the next start might read it.

Images of more than 8 bits often use fewer bits than their file has. If neither
the file nor the config says how many, one depth counts for all such images of a
client: the smallest number of bits that holds their largest value. With one
depth for a client, a dark image stays darker than a bright one. Clients may
have different cameras, so each client has its own depth.
"""

import collections
from collections.abc import Callable
import functools
import pathlib
from typing import NamedTuple

import numpy as np

from fedu_jax.data import decoded_cache
from fedu_jax.data import folder_listing
from fedu_jax.data import image_files
from fedu_jax.data import reading_report
from fedu_jax.data import resumable_decoding
from fedu_jax.data.decoding_journal import Done
from fedu_jax.data.decoding_targets import Job
from fedu_jax.data.decoding_threads import in_order
from fedu_jax.data.folder_cache import Cache
from fedu_jax.data.image_depth import Undeclared
from fedu_jax.data.image_depth import Unreadable
from fedu_jax.data.image_files import decode
from fedu_jax.data.image_files import How
from fedu_jax.data.lazy_arrays import Images, Lazy
from fedu_jax.data.reading_report import Files
from fedu_jax.data.reading_report import shown
from fedu_jax.data.reading_report import unreadable
from fedu_jax.runtime.errors import BadInput

DEFAULT_SIZE = 32  # pixels of a side, if the config does not say

Progress = Callable[[int, int], None]  # called with (done, total)


class Folders(NamedTuple):
  """The decoded images of a folder, as the cache keeps them."""
  images: Images  # [N, size, size, C] u8 or u16
  owners: np.ndarray  # [N] i32
  skipped: np.ndarray  # [n] i64: rows of the files that were skipped
  reasons: np.ndarray  # [n] texts: why each was skipped
  bits: np.ndarray  # [owners] i32: the depth of deep images; 0: none
  # [3] i64: files with several pages, files of which more than half was
  # cropped, and files that a viewer shows in other colours.
  notes: np.ndarray


def read(root: pathlib.Path, found: folder_listing.Listing, how: How,
         lazy: bool, progress: Progress, say: Callable[[str], None],
         name: str = 'images', field: str = 'data.source folder',
         instead: str = 'remove the folder') -> tuple[
             Folders, tuple[str, ...], Files, tuple[str, ...]]:
  """Reads all images, sorted by the owners' names and then by file names.

  Args:
    root: the folder of the owners' folders.
    found: the owners' folders and files in it.
    how: the choices for decoding; size 0 means `DEFAULT_SIZE`.
    lazy: whether images are decoded only when they are indexed. No file can be
      skipped then, because the other hosts would not know of it.
    progress: called with (done, total) while files are decoded.
    say: prints a line before files are decoded.
    name: the name of the images for cache files.
    field: the field that names the images, for messages.
    instead: what to do with an owner's folder without a readable image.

  Returns:
    The images; the owners' names; the counts of what was read and what was
    not; and a line 'client/file (reason)' for each file that was not read.

  Raises:
    BadInput: an owner has no readable image, the system denies reading a file,
      or, if lazy, a file is no image.
  """
  asked, how = how.size > 0, how._replace(size=how.size or DEFAULT_SIZE)
  task = _Task(root, found, how, asked, field)
  cache = Cache(root.resolve(), f'{name}-{how.name}', _state(task.paths),
                task.fit, f'{field}: {shown(root)}')
  if lazy:
    images, small = cache.found(lazy=True) or (
        task.lazily(), task.small(Done()))
  else:
    images, small = cache.made(task.job, task.small, progress, say)
  folders = Folders(images, **small)
  if lazy and len(folders.skipped):
    raise task.unskippable(folders.skipped[0], folders.reasons[0])
  task.refuse_empty(folders, instead)
  names = tuple(shown(owner.relative_to(root)) for owner in found.owners)
  return folders, names, *task.told(folders)


class _Task:
  """The files of a folder and the choices for decoding them."""

  def __init__(self, root: pathlib.Path, found: folder_listing.Listing,
               how: How, asked: bool, field: str):
    self._root, self._found, self._how = root, found, how
    self._asked, self._field = asked, field
    self.paths = [path for mine in found.files for path in mine]
    self._numbers = np.repeat(
        np.arange(len(found.files), dtype=np.int32),
        [len(mine) for mine in found.files])
    self.job = Job(len(self.paths), how.shape, how.dtype, self._numbers,
                   self._decoded)

  def small(self, done: Done) -> dict[str, np.ndarray]:
    """The arrays that are kept besides the images."""
    rows = sorted(done.skipped)
    return {'owners': np.delete(self._numbers, rows),
            'skipped': np.array(rows, np.int64),
            'reasons': np.array([done.skipped[row] for row in rows], str),
            'bits': resumable_decoding.depths(self.job, done),
            'notes': np.array(done.notes, np.int64)}

  def _decoded(self, row: int, bits: int) -> image_files.Decoded | str | int:
    """An image; or why there is none; or the largest value of unknown depth."""
    try:
      return decode(self.paths[row], self._how, int(bits))
    except Unreadable as error:
      return str(error)
    except Undeclared as error:
      return error.most

  def lazily(self) -> Lazy:
    """Returns images that are decoded when they are indexed."""
    def results(rows: np.ndarray):
      return in_order(rows, lambda row: self._decoded(row, 0),
                      self.job.row_bytes)

    @functools.cache
    def bits_of(owner: int) -> int:
      """The depth of an owner's images; only one host trains on them."""
      rows = np.flatnonzero(self._numbers == owner)
      return max(8, *(x.bit_length() for _, x in results(rows)
                      if isinstance(x, int)))

    def decode_rows(rows: np.ndarray) -> np.ndarray:
      found = []
      for row, result in results(rows):
        if isinstance(result, int):
          result = self._decoded(row, bits_of(int(self._numbers[row])))
        if not isinstance(result, image_files.Decoded):
          raise self.unskippable(row, str(result))
        found.append(result.pixels)
      return np.stack(found)
    return Lazy((self.job.files, *self.job.row), self.job.dtype, decode_rows)

  def fit(self, images: Images, small: dict[str, np.ndarray]) -> bool:
    """Whether arrays of a cache could be those of these files."""
    found, count = Folders(images, **small), self.job.files
    if not (images.shape[1:] == self.job.row
            and images.dtype == self.job.dtype
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
    return (len(images) == len(owners)
            and found.owners.dtype == np.int32
            and np.array_equal(found.owners, owners))

  def unskippable(self, row: int, reason: str) -> BadInput:
    """The error for an unreadable image if each host reads only its own."""
    return BadInput(f'{self._field}: {self._shown(self.paths[row])} '
                    f'({reason}) is not a readable image, and several hosts '
                    'skip none: repair or remove it')

  def refuse_empty(self, found: Folders, instead: str) -> None:
    """Raises BadInput if an owner has no image that could be read."""
    for i, owner in enumerate(self._found.owners):
      if not (found.owners == i).any():
        n = int(np.flatnonzero(self._numbers[found.skipped] == i)[0])
        one = self._shown(self.paths[found.skipped[n]])
        raise BadInput(
            f'{self._field}: none of the {len(self._found.files[i])} '
            f'images in {shown(owner)} can be read, such as {one} '
            f'({found.reasons[n]}): repair them, or {instead}')

  def told(self, found: Folders) -> tuple[Files, tuple[str, ...]]:
    """Reports what was read and what was not, in numbers and in words."""
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
        bits={self._shown(owner): int(x) for owner, x in zip(
            self._found.owners, found.bits) if x},
        pages=int(found.notes[0]), cropped=int(found.notes[1]),
        unseen=int(found.notes[2]))
    return files, tuple(
        f'{self._shown(path)}{"/" * folder} ({reading_report.in_words(reason)})'
        for path, reason, folder in sorted(not_read))

  def _shown(self, path: pathlib.Path) -> str:
    return reading_report.within(path, self._root)


def _state(paths: list[pathlib.Path]) -> str:
  """Returns a text that changes when a file changes."""
  try:
    return decoded_cache.state_of(paths)
  except OSError as error:
    raise unreadable(error.filename, error) from error
