"""Normalisation of pixels, as the first step of a backbone.

It is part of the network, so that training, evaluation and an exported encoder
all have it.
"""

import jax.numpy as jnp

from fedu_jax.core.state import Array

# Red, green and blue of ImageNet's training images, in 0..1, as torchvision
# and timm have them.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

KINDS = ('none', 'imagenet')


def normalised(images: Array, kind: str) -> Array:
  """Normalises pixels.

  Args:
    images: [B, H, W, C] f32 in 0..1. Grey images (C = 1) use the means of the
      three colours' constants.
    kind: 'imagenet', to subtract ImageNet's mean and divide by its deviation;
      or 'none'.

  Raises:
    ValueError: there are neither one nor three channels, or no such kind.
  """
  if kind == 'none':
    return images
  if kind != 'imagenet' or images.shape[-1] not in (1, len(MEAN)):
    raise ValueError(f'normalise={kind!r} of {images.shape[-1]} channels')
  mean, deviation = (
      jnp.asarray(numbers if images.shape[-1] > 1
                  else [sum(numbers) / len(numbers)],
                  images.dtype).reshape(1, 1, 1, -1)
      for numbers in (MEAN, DEVIATION))
  return (images - mean) / deviation
