"""Decodes image files to upright, square images of one size.

Images of 8 bits keep their values. The values of deeper images are divided by a
power of two, so that the largest possible value becomes 255, or keep their
depth. A file that is damaged or of an unsupported format is `Unreadable`.
"""

from collections.abc import Iterator
import contextlib
import functools
import io
import logging
import pathlib
import stat
import threading
from typing import NamedTuple
import warnings

import numpy as np
from PIL import Image

from fedu_jax.data import dicom_files
from fedu_jax.data import heic_files
from fedu_jax.data import image_colours
from fedu_jax.data import image_depth
from fedu_jax.data import optional_readers
from fedu_jax.data import pixel_arrays
from fedu_jax.data.image_depth import Undeclared
from fedu_jax.data.image_depth import Unreadable
from fedu_jax.data.reading_report import unreadable

FITS = pixel_arrays.FITS
COLOURS = ('stored', 'seen')
DEPTHS = (0, *range(8, 17))  # bits; 0: see `image_folders`

# The formats that Pillow decodes by itself, from bytes alone. Other formats may
# start programs (EPS) or are no pictures.
_FORMATS = ('AVIF', 'BMP', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'PCX', 'PNG',
            'PPM', 'SGI', 'TGA', 'TIFF', 'WEBP')
_MOST_BYTES = 2**30  # of a file
_MOST_OF_ONE = 178_956_970  # pixels of an image, Pillow's limit
_PREFIX = 16  # bytes that identify a format of Pillow's
# The pixels that all threads decode at once, unless one image alone has more.
# A pixel takes some 10 bytes while it is decoded.
_MOST_PIXELS = 2**27


class How(NamedTuple):
  """The choices for reading images."""
  size: int  # pixels of a side
  fit: str = 'crop'  # to the square in the middle; or 'pad' with black
  depth: int = 0  # bits if a file does not say; 0: see `image_folders`
  colours: str = 'stored'  # as in the file; or 'seen', see `image_colours`
  channels: int = 3  # 1: Pillow's luma of colours, and grey as it is
  keep_depth: bool = False  # uint16, of which full scale is 65535; else uint8
  window: str = 'file'  # of DICOM files, see `dicom_files`

  @property
  def dtype(self) -> np.dtype:
    """The dtype of an image."""
    return np.dtype(np.uint16 if self.keep_depth else np.uint8)

  @property
  def shape(self) -> tuple[int, int, int]:
    """The shape of an image, [H, W, C]."""
    return self.size, self.size, self.channels

  @property
  def name(self) -> str:
    """A name of the choices for cache files; defaults are left out."""
    usual = How(self.size)
    marks = (str(self.depth), self.fit, self.colours, 'grey', 'deep',
             f'window{self.window}')
    fields = 'depth', 'fit', 'colours', 'channels', 'keep_depth', 'window'
    return '-'.join([str(self.size)] + [
        mark for field, mark in zip(fields, marks)
        if getattr(self, field) != getattr(usual, field)])


class Decoded(NamedTuple):
  """An image, and what its file has besides it."""
  pixels: np.ndarray  # [size, size, channels] u8 or u16, see `How`
  pages: bool  # whether the file has more pages or frames
  cropped: bool  # whether more than half of the image was cropped
  unseen: bool  # whether a viewer shows other colours


def decode(path: pathlib.Path, how: How, bits: int = 0) -> Decoded:
  """Decodes one file.

  It takes the first frame of an animation and the first of several pages.
  Pillow prints warnings, except inside `quiet`.

  Args:
    path: the file.
    how: the choices.
    bits: the depth of a deeper image, if neither the file nor `how` says it; 0
      if it is not known.

  Returns:
    The decoded image.

  Raises:
    Unreadable: the file has no image, a damaged one, or one too large.
    Undeclared: the depth is needed and not known.
    BadInput: the system denies reading the file.
  """
  try:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
      raise Unreadable('no file')  # opening a pipe could wait for ever
    if found.st_size > _MOST_BYTES:
      raise Unreadable(f'more than {_MOST_BYTES:,} bytes')
    content = path.read_bytes()
  except OSError as error:
    raise unreadable(path, error) from error
  if not content:
    raise Unreadable('empty')
  try:
    reader = optional_readers.of_content(content)
    if reader and not reader.here:
      raise Unreadable(
          f'in {reader.name}, which fedu_jax[{reader.extra}] reads')
    if reader is optional_readers.DICOM:
      return _decoded_dicom(content, how)
    return _decoded_picture(content, how, bits, reader is optional_readers.HEIC)
  except (Unreadable, Undeclared, MemoryError):
    raise
  except Image.DecompressionBombError as error:
    raise Unreadable(f'more than {_MOST_OF_ONE:,} pixels') from error
  except Image.UnidentifiedImageError as error:
    raise Unreadable('no image of a kind that is read') from error
  except Exception as error:  # a damaged file can raise any error in Pillow
    reason = ' '.join(str(error).split())[:100] or type(error).__name__
    raise Unreadable(reason) from error


def _decoded_picture(content: bytes, how: How, bits: int, heic: bool
                     ) -> Decoded:
  """Decodes a file that Pillow or pillow-heif reads."""
  with (heic_files.opened(content) if heic else
        Image.open(io.BytesIO(content), formats=_formats())) as file, _room(
            file.width * file.height * how.dtype.itemsize):
    image: Image.Image | np.ndarray | None = (
        heic_files.deep(content) if heic and how.keep_depth else None)
    if image is None:
      # pillow-heif shifts grey values of more than 8 bits to the top of 16.
      image = image_depth.decoded(
          file, content, 16 if heic else how.depth or bits, _formats(),
          how.keep_depth)
    unseen = image_colours.differ(file)
    if isinstance(image, Image.Image):
      if unseen and how.colours == 'seen':
        image, unseen = image_colours.seen(image, file), False
      image = _in_mode(image, how.channels)
    return Decoded(_pixels_of(image, how), _has_more(file),
                   _cropped(*file.size, how), unseen)


def _decoded_dicom(content: bytes, how: How) -> Decoded:
  found = dicom_files.header(content)
  width, height = int(found.Columns), int(found.Rows)
  if width * height > _MOST_OF_ONE:
    raise Unreadable(f'more than {_MOST_OF_ONE:,} pixels')
  with _room(2 * width * height):
    image = dicom_files.pixels(found, how.window, how.dtype)
    return Decoded(_pixels_of(image, how), dicom_files.frames(found) > 1,
                   _cropped(width, height, how), False)


def _cropped(width: int, height: int, how: How) -> bool:
  """Whether more than half of an image is cropped."""
  short, long = sorted((width, height))
  return how.fit == 'crop' and long > 2 * short


def is_image(path: pathlib.Path, by_content: bool) -> bool:
  """Whether a file is an image by its name, or by its first bytes.

  Args:
    path: the file.
    by_content: whether to look at the first bytes and not at the name.

  Raises:
    BadInput: the system denies reading the file.
  """
  if not by_content:
    return path.suffix.lower() in _extensions()
  try:
    with open(path, 'rb') as file:
      prefix = file.read(optional_readers.PREFIX)
  except OSError as error:
    raise unreadable(path, error) from error
  reader = optional_readers.of_content(prefix)
  if reader:
    return reader.here
  prefix = prefix[:_PREFIX]
  # Formats without a signature cannot be told from other files.
  marks = [Image.OPEN[name][1] for name in _formats()]
  return len(prefix) == _PREFIX and any(mark and mark(prefix) is True
                                        for mark in marks)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Silences warnings of readers; our own report names what was not read.

  Warning filters belong to the process, so no other thread may decode while
  this context is entered or left.
  """
  loggers = [logging.getLogger(x) for x in ('PIL', 'pydicom')]
  levels = [x.level for x in loggers]
  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  _formats()
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    for logger, level in zip(loggers, levels):
      logger.setLevel(level)


@functools.cache
def _formats() -> list[str]:
  """The formats of `_FORMATS` that this Pillow supports."""
  Image.init()
  return [name for name in _FORMATS if name in Image.OPEN]


@functools.cache
def _extensions() -> frozenset[str]:
  """The file extensions of these formats."""
  kinds = Image.registered_extensions()
  return frozenset(x for x, kind in kinds.items()
                   if kind in (*_FORMATS, 'MPO')  # MPO: JPEGs of cameras
                   ).union(optional_readers.extensions())


_pixels = 0  # of all images that threads are decoding
_changed = threading.Condition()


@contextlib.contextmanager
def _room(pixels: int) -> Iterator[None]:
  """Waits until all threads together decode few enough pixels."""
  global _pixels
  with _changed:
    _changed.wait_for(lambda: not _pixels or _pixels + pixels <= _MOST_PIXELS)
    _pixels += pixels
  try:
    yield
  finally:
    with _changed:
      _pixels -= pixels
      _changed.notify_all()


def _has_more(file: Image.Image) -> bool:
  """Whether a file has more than one page or frame."""
  try:
    return bool(getattr(file, 'is_animated', False))
  except Exception:  # later pages may be damaged
    return False


def _in_mode(image: Image.Image, channels: int) -> Image.Image:
  """Converts an image of 8 bits to mode RGB, or to L for one channel."""
  if image.mode == ('RGB' if channels == 3 else 'L'):
    return image
  colours = image.convert('RGB')
  return colours if channels == 3 else colours.convert('L')


def _pixels_of(image: Image.Image | np.ndarray, how: How) -> np.ndarray:
  """Makes a square array of an image of 8 bits, or of [H, W, C]."""
  if isinstance(image, Image.Image):
    pixels = np.asarray(pixel_arrays.framed(
        image, how.size, how.size, how.fit)).reshape(how.shape)
    return pixel_arrays.sixteen_bits(pixels) if how.keep_depth else pixels
  return pixel_arrays.fitted(image, how.shape, how.fit)
