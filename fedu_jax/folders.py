"""Reads one folder of images for each client, passing over what is no image.

A file that is damaged, or no image of a kind that is read here, is skipped and
counted. What the system does not let us read (a link to nowhere, no permission,
a failing disk) is refused instead: that is no fault of the image, and might be
another answer next time.
"""

from collections.abc import Iterator
import contextlib
import functools
import io
import logging
import os
import pathlib
from typing import NamedTuple
import warnings

import numpy as np
from PIL import Image, ImageOps

from fedu_jax import cache
from fedu_jax import memory
from fedu_jax.errors import BadInput
from fedu_jax.lazy import Images, Lazy

DEFAULT_SIZE = 32  # pixels, where the config does not say

# What Pillow decodes by itself, from bytes alone; of other formats some start
# programs (EPS) and some are no pictures.
_FORMATS = ('AVIF', 'BMP', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'PCX', 'PNG',
            'PPM', 'SGI', 'TGA', 'TIFF', 'WEBP')
_MOST_BYTES = 2**30  # of a file


class Unreadable(ValueError):
  """A file holds no image that we read; the message is the reason."""


class Folders(NamedTuple):
  """What is read of a folder, and what the cache keeps of it."""
  images: Images  # [N, size, size, 3] u8
  owners: np.ndarray  # [N] i32
  skipped: np.ndarray  # [n] texts, 'client/file (reason)'; never read lazily


def decode(path: pathlib.Path, size: int) -> np.ndarray:
  """Decodes one file: upright, RGB, cropped to a square in its middle.

  Of an animation the first frame is taken; 16 bits become 8.

  Args:
    path: the file.
    size: pixels of a side.

  Returns:
    [size, size, 3] u8.

  Raises:
    Unreadable: it holds no image, a damaged one, or one too large.
    BadInput: the system does not let us read it.
  """
  try:
    if not path.is_file() and path.exists():
      raise Unreadable('no file')  # to open a pipe would be to wait for ever
    if path.stat().st_size > _MOST_BYTES:
      raise Unreadable(f'more than {_MOST_BYTES:,} bytes')
    content = path.read_bytes()
  except OSError as error:
    raise BadInput(f'data.source folder: {shown(path)} cannot be read '
                   f'({error.strerror}): repair or remove it') from error
  if not content:
    raise Unreadable('empty')
  try:
    with _unheard(), Image.open(
        io.BytesIO(content), formats=_formats()) as file:
      return _square(file, size)
  except Unreadable:
    raise
  except Image.UnidentifiedImageError as error:
    raise Unreadable('no image of a kind that is read') from error
  except Exception as error:  # damage leads Pillow's decoders to anything
    reason = ' '.join(str(error).split())[:100] or type(error).__name__
    raise Unreadable(reason) from error


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
  """Without Pillow's words on what is odd: it is read, or we say why not."""
  logger = logging.getLogger('PIL')
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logger.setLevel(level)


@functools.cache
def _formats() -> list[str]:
  """Those of `_FORMATS` that this Pillow has."""
  Image.init()
  return [name for name in _FORMATS if name in Image.OPEN]


def _square(image: Image.Image, size: int) -> np.ndarray:
  # Large ones are not copied without need: Pillow lets 178 million pixels pass.
  ImageOps.exif_transpose(image, in_place=True)
  if image.mode.startswith(('I', 'F')):  # one channel that is not of 8 bits
    deep = np.asarray(image)
    if deep.dtype.kind == 'f' or not 0 <= deep.min() <= deep.max() < 2**16:
      raise Unreadable('neither 8 nor 16 bits')
    image = Image.fromarray((deep >> 8).astype(np.uint8))  # convert() clips
  if image.mode != 'RGB':
    image = image.convert('RGB')
  return np.asarray(ImageOps.fit(image, (size, size),
                                 Image.Resampling.BILINEAR))


def read(root: pathlib.Path, size: int,
         lazy: bool) -> tuple[Folders, tuple[str, ...]]:
  """Reads all images in the order of their owners' names, then their own.

  Args:
    root: the folder of the owners' folders.
    size: pixels of a side.
    lazy: whether images are decoded only when they are indexed. Nothing can be
      skipped then: hosts that read others' images would not know of it.

  Returns:
    The images, and the owners' names.

  Raises:
    BadInput: there is no owner, or one without a readable image; or a file that
      the system does not let us read, or, if lazy, that is no image.
  """
  owners, files = _listed(root)
  paths = [path for mine in files for path in mine]
  numbers = np.repeat(np.arange(len(files), dtype=np.int32),
                      [len(mine) for mine in files])
  if not lazy:
    memory.refuse(len(paths) * size * size * 3, f'{root} at {size} pixels')

  def decode_all() -> Folders:
    images, skipped = [], {}
    for i, path in enumerate(paths):
      try:
        images.append(decode(path, size))
      except Unreadable as error:
        skipped[i] = f'{shown(path.relative_to(root))} ({error})'
    kept = np.delete(np.arange(len(paths)), list(skipped))
    return Folders(
        np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8),
        numbers[kept], np.array(list(skipped.values()), str))

  def decode_rows(rows: np.ndarray) -> np.ndarray:
    try:
      return np.stack([decode(paths[i], size) for i in rows])
    except Unreadable as error:
      raise _unskippable(error) from error

  def read_rows() -> Folders:
    return Folders(Lazy((len(paths), size, size, 3), np.uint8, decode_rows),
                   numbers, np.array([], str))

  def fits(found: Folders) -> bool:
    return (cache.is_images(found.images, size)
            and found.owners.shape == (len(found.images),)
            and found.owners.dtype == np.int32
            and found.skipped.dtype.kind == 'U' and found.skipped.ndim == 1
            and len(found.skipped) + len(found.images) == len(paths)
            and bool(np.isin(found.owners, numbers).all()))

  key = root, f'images-{size}', _state(paths), Folders
  found = (cache.mapped(*key, read_rows, fits) if lazy
           else cache.kept(*key, decode_all, fits))
  if lazy and len(found.skipped):
    raise _unskippable(found.skipped[0])
  for i, owner in enumerate(owners):
    if not (found.owners == i).any():
      one = next(x for x in found.skipped
                 if x.startswith(f'{shown(owner.name)}/'))
      raise BadInput(f'data.source folder: none of the {len(files[i])} images '
                     f'in {shown(owner)} can be read, such as {one}: repair '
                     'them, or remove the folder')
  return found, tuple(shown(owner.name) for owner in owners)


def _unskippable(what: object) -> BadInput:
  return BadInput(f'data.source folder: {what} is not a readable image, and '
                  'several hosts skip none: repair or remove it')


def _listed(root: pathlib.Path
            ) -> tuple[list[pathlib.Path], list[list[pathlib.Path]]]:
  """The owners' folders, and the files of each that are called images."""
  if not root.is_dir():
    raise BadInput(f'data.source folder: there is no folder {root}')
  kinds = Image.registered_extensions()
  try:
    owners = sorted(p for p in root.iterdir()
                    if p.is_dir() and not p.name.startswith('.'))
    files = [sorted(p for p in owner.rglob('*') if p.suffix.lower() in kinds
                    and not p.name.startswith('.') and not p.is_dir())
             for owner in owners]
  except OSError as error:
    raise BadInput(f'data.source folder: {root} cannot be listed ({error})'
                   ) from error
  if not owners:
    raise BadInput(f'data.source folder: {root} has no folders; it needs one '
                   'folder of images for each client')
  for owner, mine in zip(owners, files):
    if not mine:
      raise BadInput(f'data.source folder: {shown(owner)} has no images')
  return owners, files


def _state(paths: list[pathlib.Path]) -> str:
  """Changes whenever a file does."""
  try:
    return cache.state_of(paths)
  except OSError as error:
    raise BadInput(f'data.source folder: {shown(error.filename)} cannot be '
                   f'read ({error.strerror}): repair or remove it') from error


def shown(name: object) -> str:
  """A file's name as it can be printed: some hold bytes that are no text."""
  text = os.fsencode(str(name)).decode(errors='replace')
  return ''.join(c if c.isprintable() else '?' for c in text)
