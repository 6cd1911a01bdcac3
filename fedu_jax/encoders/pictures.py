"""Turns images of any size into an encoder's: resized as in training.

The functions are those that make images of files for training, so an array of a
photograph's pixels gives the features that its file gives.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedu_jax.data import pixel_arrays
from fedu_jax.encoders.about import About

_ASKED = ('images must be uint8 or uint16 (of floats x in 0..1: '
          'np.round(255 * x).astype(np.uint8)), [H, W] or [H, W, 1 or 3] each '
          "(with transparency: np.asarray(picture.convert('RGB')))")


def listed(images: Any) -> tuple[Sequence[np.ndarray], bool]:
  """Takes images apart.

  Args:
    images: one image, [H, W] or [H, W, 1 or 3]; several of one size, [N, H, W]
      or [N, H, W, 1 or 3]; or a list of images of any sizes. Three axes are
      several grey images, unless the last one has length 1 to 4. With 2 or 4 it
      would be the channels of a picture with transparency, and is refused.

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
  if images.ndim == 3 and images.shape[2] > 4 or (
      images.ndim == 4 and images.shape[3] in (1, 3)):
    return list(images), False
  raise ValueError(f'{_ASKED}; these are {images.dtype} {images.shape}')


def fitted(image: np.ndarray, about: About) -> np.ndarray:
  """Makes an image as an encoder takes it.

  Args:
    image: [H, W] or [H, W, 1 or 3], uint8 or uint16, of any size.
    about: the record of the encoder.

  Returns:
    [height, width, channels]; uint16 if the encoder's images are, else in the
    dtype of `image`.

  Raises:
    ValueError: the image has another shape or dtype.
  """
  if (image.dtype not in (np.uint8, np.uint16) or 0 in image.shape
      or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,))):
    raise ValueError(f'{_ASKED}; one is {image.dtype} {image.shape}')
  image = pixel_arrays.fitted(
      image.reshape(*image.shape[:2], -1), about.shape,
      about.reading.get('fit', pixel_arrays.FITS[0]))
  deep = about.dtype == 'uint16'
  return pixel_arrays.sixteen_bits(image) if deep else image
