"""Turns images of any size into an encoder's: resized as in training.

The functions of Pillow are those that make images of files for training, so an
array of a photograph's pixels gives the features that its file gives.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fedu_jax.encoders.about import About

_ASKED = ('images must be uint8 or uint16 (of floats x in 0..1: '
          'np.round(255 * x).astype(np.uint8)), [H, W] or [H, W, 1 or 3] each')


def listed(images: Any) -> tuple[Sequence[np.ndarray], bool]:
  """Takes images apart.

  Args:
    images: one image, [H, W] or [H, W, 1 or 3]; several of one size, [N, H, W]
      or [N, H, W, 1 or 3]; or a list of images of any sizes. Three axes are
      several grey images, unless the last one has length 1 or 3.

  Returns:
    The images, and whether `images` is one image.

  Raises:
    ValueError: they have another shape.
  """
  if isinstance(images, (list, tuple)):
    return [np.asarray(image) for image in images], False
  images = np.asarray(images)
  if images.ndim == 2 or images.ndim == 3 and images.shape[2] in (1, 3):
    return [images], True
  if images.ndim == 3 or images.ndim == 4 and images.shape[3] in (1, 3):
    return list(images), False
  raise ValueError(f'{_ASKED}; these are {images.dtype} {images.shape}')


def fitted(image: np.ndarray, about: About) -> np.ndarray:
  """Makes an image as an encoder takes it.

  Args:
    image: [H, W] or [H, W, 1 or 3], uint8 or uint16, of any size.
    about: the record of the encoder.

  Returns:
    [height, width, channels], in the dtype of `image`.

  Raises:
    ValueError: the image has another shape or dtype.
  """
  if (image.dtype not in (np.uint8, np.uint16) or 0 in image.shape
      or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,))):
    raise ValueError(f'{_ASKED}; one is {image.dtype} {image.shape}')
  image = _channels(image.reshape(*image.shape[:2], -1), about.channels)
  if image.shape[:2] == about.size:
    return image
  if image.dtype == np.uint8:
    return _resized(image, about)
  return np.round(np.stack([
      _resized(image[..., c].astype(np.float32), about)
      for c in range(about.channels)], -1)).astype(np.uint16)


def _channels(image: np.ndarray, wanted: int) -> np.ndarray:
  """Repeats a grey image, or weighs colours as Pillow's mode L does."""
  if image.shape[2] == wanted:
    return image
  if wanted == 3:
    return np.repeat(image, 3, -1)
  if image.dtype == np.uint8:
    return np.asarray(Image.fromarray(image).convert('L'))[..., None]
  weights = np.array([299, 587, 114]) / 1000  # ITU-R 601-2
  return np.round(image @ weights).astype(np.uint16)[..., None]


def _resized(image: np.ndarray, about: About) -> np.ndarray:
  """Crops or pads to the encoder's size: [H, W, C] u8, or [H, W] f32."""
  height, width = about.size
  grey = image.ndim == 3 and image.shape[2] == 1
  picture = Image.fromarray(image[..., 0] if grey else image)
  if about.reading.get('fit') == 'pad':
    if picture.width * height >= picture.height * width:
      size = width, max(1, round(picture.height * width / picture.width))
    else:
      size = max(1, round(picture.width * height / picture.height)), height
    padded = Image.new(picture.mode, (width, height))
    padded.paste(picture.resize(size, Image.Resampling.BILINEAR),
                 ((width - size[0]) // 2, (height - size[1]) // 2))
    picture = padded
  else:
    picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
  found = np.asarray(picture)
  return found[..., None] if grey else found
