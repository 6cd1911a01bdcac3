"""Decodes images of more than 8 bits, to 8 bits or without a loss.

To become 8 bits, values are divided by a power of two. Otherwise they are
stretched to 16 bits. Pillow keeps only the high byte of 16-bit colours, so that
a file of these is decoded twice.
"""

import io
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fedu_jax.data import pixel_arrays

_COLOURS = 'RGB', 'RGBA', 'RGBX', 'CMYK'  # modes that may have 16 bits


class Unreadable(ValueError):
  """A file holds no image that can be read; the message is the reason."""


class Undeclared(Exception):
  """An image has more than 8 bits, and its file does not say how many.

  Attributes:
    most: the largest value of the image.
  """

  def __init__(self, most: int):
    super().__init__(most)
    self.most = most


def decoded(file: Image.Image, content: bytes, bits: int, formats: list[str],
            keep: bool = False) -> Image.Image | np.ndarray:
  """Decodes an open file to an upright image.

  Args:
    file: the file, which may be changed.
    content: its bytes.
    bits: the bits of a deeper image, if its file does not say; 0: not known.
    formats: the formats that Pillow may take the file for.
    keep: whether an image of more than 8 bits keeps them.

  Returns:
    An image in any mode of 8 bits; or an array [H, W, 1 or 3] u16, if `keep` is
    set and the file has more than 8 bits.

  Raises:
    Unreadable: the values have no depth that is supported.
    Undeclared: `bits` is needed and 0.
  """
  tiles = list(getattr(file, 'tile', ()))
  rawmodes = [_rawmode(tile) for tile in tiles]
  # In place, to save a copy: an image may have 178 million pixels.
  ImageOps.exif_transpose(file, in_place=True)
  if file.mode.startswith(('I', 'F')):  # one channel of more than 8 bits
    deep = np.asarray(file)
    if deep.dtype.kind == 'f' or not 0 <= deep.min() <= deep.max() < 2**16:
      raise Unreadable('neither 8 nor 16 bits')
    if 'I;12' in rawmodes:
      bits = 12
    elif any(tile[0] == 'ppm' for tile in tiles):
      bits = 16  # Pillow has scaled the image to 16 bits
    if not bits:
      raise Undeclared(int(deep.max()))
    if keep:
      return pixel_arrays.stretched(deep, bits)[..., None]
    return Image.fromarray(_shifted(deep, bits))  # convert() clips
  if file.mode in _COLOURS and any(';16' in x for x in rawmodes):
    return _deep_colours(file, content, bits, formats, keep)
  return file


def _deep_colours(image: Image.Image, content: bytes, bits: int,
                  formats: list[str], keep: bool) -> Image.Image | np.ndarray:
  """Decodes 16-bit colours from both bytes; Pillow keeps the high byte only."""
  mode = 'CMYK' if image.mode == 'CMYK' else 'RGB'
  high = np.asarray(image)[..., :len(mode)]
  if not bits:
    raise Undeclared(int(high.max()) << 8 | 255)
  if bits == 16 and not keep:
    return image
  with Image.open(io.BytesIO(content), formats=formats) as file:
    grey = _rawmode(file.tile[0]).startswith('LA')
    try:
      tiles: Any = [(*tile[:3], _of_lower(tile[3])) for tile in file.tile]
      file.tile = tiles
      ImageOps.exif_transpose(file, in_place=True)
    except (ValueError, KeyError, OSError) as error:
      raise Unreadable('colours of fewer bits than the file') from error
    low = np.asarray(file)[..., 1:2] if grey else np.asarray(file)
  deep = high.astype(np.uint16) << 8 | low[..., :len(mode)]
  if keep:
    deep = pixel_arrays.stretched(deep, bits)
    return _from_print(deep) if mode == 'CMYK' else deep
  return Image.frombytes(mode, image.size, _shifted(deep, bits).tobytes())


def _from_print(deep: np.ndarray) -> np.ndarray:
  """CMYK [H, W, 4] u16 -> RGB [H, W, 3] u16, as Pillow does it in 8 bits."""
  light = 65535 - deep.astype(np.uint32)
  product = light[..., :3] * light[..., 3:]
  return ((product + 32767) // 65535).astype(np.uint16)


def _rawmode(tile: Any) -> str:
  """Pillow's name for the layout of a tile's bytes."""
  args = tile[3] if isinstance(tile[3], str) else (tile[3] or ('',))[0]
  return args if isinstance(args, str) else ''


def _of_lower(args: Any) -> Any:
  """Changes a tile's arguments, so that Pillow decodes the low bytes."""
  if not isinstance(args, str):
    return (_of_lower(args[0]), *args[1:])
  if args == 'LA;16B':
    return 'RGBA'  # of these four bytes the second is the low byte of grey
  if args.startswith('RGBa'):
    raise ValueError('multiplied by alpha')
  native = 'L' if sys.byteorder == 'little' else 'B'
  order = args[-1].replace('N', native)
  return args[:-1] + {'B': 'L', 'L': 'B'}[order]


def _shifted(deep: np.ndarray, bits: int) -> np.ndarray:
  """Reduces values of `bits` bits to 8 bits; larger values become 255."""
  return np.minimum(deep >> bits - 8, 255).astype(np.uint8)
