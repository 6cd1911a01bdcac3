"""Arrays of pixels: their channels, their depth and their size.

Images are uint8 or uint16, [..., H, W, C], with 1 or 3 channels. Full scale is
255 or 65535.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

DTYPES = np.dtype(np.uint8), np.dtype(np.uint16)
CHANNELS = 1, 3
FITS = 'crop', 'pad'
# The weights of red, green and blue in Pillow's convert('L'), of 2**16.
_LUMA = 19595, 38470, 7471


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
  """Gives images a number of channels.

  Args:
    images: [..., 1 or 3], u8 or u16.
    channels: 1 or 3. One of three channels becomes Pillow's luma; one channel
      becomes three equal ones.

  Returns:
    The images, [..., channels]; the same array if it has these channels.
  """
  if images.shape[-1] == channels:
    return images
  return np.repeat(images, 3, -1) if channels == 3 else _luma(images)


def _luma(images: np.ndarray) -> np.ndarray:
  """Pillow's convert('L'), for 16 bits too: [..., 3] -> [..., 1]."""
  # Three products of 16 bits by weights that add up to 2**16 fit uint32.
  total = np.full(images.shape[:-1], 2**15, np.uint32)
  for i, weight in enumerate(_LUMA):
    total += images[..., i] * np.uint32(weight)
  return (total >> 16).astype(images.dtype)[..., None]


def sixteen_bits(images: np.ndarray) -> np.ndarray:
  """Makes u8 images u16, so that 255 becomes 65535; u16 stays as it is."""
  return images if images.dtype == np.uint16 else images * np.uint16(257)


def stretched(deep: np.ndarray, bits: int) -> np.ndarray:
  """Stretches values of `bits` bits to u16; larger values become 65535."""
  full = np.uint32(2**bits - 1)
  kept = np.minimum(deep, full).astype(np.uint32)
  return ((kept * np.uint32(65535) + full // 2) // full).astype(np.uint16)


def planes(image: np.ndarray) -> list[Image.Image]:
  """Pillow images of [H, W, C], to be resized without a loss of depth.

  Pillow resizes 8 bits as they are. It keeps 16 bits only in images of float32.
  """
  if image.dtype == np.uint8:
    return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)]
  return [Image.fromarray(image[..., i].astype(np.float32))
          for i in range(image.shape[-1])]


def joined(found: Sequence[Image.Image], dtype: np.dtype) -> np.ndarray:
  """Makes an array [H, W, C] of the images that `planes` made."""
  arrays = [np.asarray(x) for x in found]
  image = np.stack(arrays, -1) if arrays[0].ndim == 2 else arrays[0]
  return image if image.dtype == dtype else np.rint(image).astype(dtype)


def framed(image: Image.Image, height: int, width: int,
           fit: str) -> Image.Image:
  """Resizes an image bilinearly, antialiased, and keeps its proportions.

  Args:
    image: the image, in any mode that Pillow resizes.
    height: the pixels of the result.
    width: the pixels of the result.
    fit: 'crop' to the middle, or 'pad' with black.
  """
  if fit == 'crop':
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
  if image.width * height >= image.height * width:
    size = width, max(1, round(image.height * width / image.width))
  else:
    size = max(1, round(image.width * height / image.height)), height
  padded = Image.new(image.mode, (width, height))
  padded.paste(image.resize(size, Image.Resampling.BILINEAR),
               ((width - size[0]) // 2, (height - size[1]) // 2))
  return padded


def fitted(image: np.ndarray, shape: tuple[int, int, int],
           fit: str) -> np.ndarray:
  """Gives an image a size and channels, as files get them.

  Args:
    image: [H, W, 1 or 3] u8 or u16.
    shape: the shape of the result.
    fit: as in `framed`.
  """
  height, width, channels = shape
  if channels == 1:  # before it is resized, as rounding differs after it
    image = with_channels(image, 1)
  if image.shape[:2] != (height, width):
    image = joined([framed(x, height, width, fit) for x in planes(image)],
                   image.dtype)
  return with_channels(image, channels)


def resize(images: np.ndarray, size: int) -> np.ndarray:
  """Resizes [N, H, W, C] bilinearly, antialiased, as torchvision on PIL."""
  return np.stack([joined(
      [x.resize((size, size), Image.Resampling.BILINEAR)
       for x in planes(image)], images.dtype) for image in images])
