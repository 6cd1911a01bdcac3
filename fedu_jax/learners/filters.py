"""Gaussian blur and solarisation of an image, as the views of BYOL have them.
"""

import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array

# Pixels of a side; images of fewer are not blurred.
LEAST = 20


def blur(image: Array, sigma: Array | float) -> Array:
  """Blurs with a Gaussian kernel of a tenth of the image's side.

  The kernel is that of SimCLR's and BYOL's code: 2 (side // 20) + 1 pixels, 23
  for 224 and 3 for 32; below 20 pixels it is 1, and the image stays. Borders
  are mirrored, as in torchvision's GaussianBlur, where BYOL's code puts black
  around the image. DINO and MoCo use PIL's GaussianBlur, which approximates the
  Gaussian by three box filters; that is not imitated.

  A sum of shifted images needs a fifth of the operations of products with
  matrices [H, H] at 224 pixels, and no convolution with a kernel of each image.

  Args:
    image: [H, W, C] f32.
    sigma: the deviation, in pixels.

  Returns:
    [H, W, C] f32.
  """
  radius = image.shape[0] // LEAST
  away = jnp.arange(-radius, radius + 1, dtype=image.dtype)
  weights = jnp.exp(-0.5 * jnp.square(away / sigma))
  weights = weights / weights.sum()
  for axis in (0, 1):
    around = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
    padded, size = jnp.pad(image, around, 'reflect'), image.shape[axis]
    image = sum(weight * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
                for i, weight in enumerate(weights))
  return image


def solarise(image: Array, most: float) -> Array:
  """Inverts the bright half of values: 128 and more of 255, as PIL does.

  Args:
    image: [H, W, C] f32.
    most: the value of white.
  """
  return jnp.where(image > most / 2, most - image, image)
