"""Random crops of an image, resized to its size, as torchvision and PIL do."""

import functools

import jax
import jax.numpy as jnp

from fedu_jax.core import precision
from fedu_jax.core.state import Array

_uniform = functools.partial(jax.random.uniform, dtype=jnp.float32)
_CROP_TRIES = 10  # torchvision's RandomResizedCrop


def crop_box(rng: Array, height: int, width: int, *, scale: tuple[float, float],
             ratio: tuple[float, float]) -> tuple[Array, ...]:
  """Draws a crop as torchvision's RandomResizedCrop does.

  It draws ten boxes, with an area uniform in `scale` and an aspect log-uniform
  in `ratio`, and places the first that fits uniformly in the image. If none
  fits, it takes the largest central box of an allowed aspect.

  Args:
    rng: a key.
    height: of the image, in pixels.
    width: of the image, in pixels.
    scale: the range of the box's share of the area.
    ratio: the range of the box's width / height.

  Returns:
    The box as (top, left, rows, columns), each [] f32; at least one pixel.
  """
  rng_area, rng_ratio, rng_top, rng_left = jax.random.split(rng, 4)
  area = height * width * _uniform(
      rng_area, (_CROP_TRIES,), minval=scale[0], maxval=scale[1])
  aspect = jnp.exp(_uniform(
      rng_ratio, (_CROP_TRIES,), minval=jnp.log(ratio[0]),
      maxval=jnp.log(ratio[1])))
  w = jnp.round(jnp.sqrt(area * aspect))
  h = jnp.round(jnp.sqrt(area / aspect))
  fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
  first = jnp.argmax(fits)

  whole = width / height
  if whole < ratio[0]:
    central = (max(min(round(width / ratio[0]), height), 1), width)
  elif whole > ratio[1]:
    central = (height, max(min(round(height * ratio[1]), width), 1))
  else:
    central = (height, width)
  found = fits[first]
  h = jnp.where(found, h[first], float(central[0]))
  w = jnp.where(found, w[first], float(central[1]))

  def place(key, free, centre):
    drawn = jnp.floor(_uniform(key) * (free + 1))
    return jnp.where(found, jnp.minimum(drawn, free), float(centre))

  top = place(rng_top, height - h, (height - central[0]) // 2)
  left = place(rng_left, width - w, (width - central[1]) // 2)
  return top, left, h, w


def _resize_matrix(start: Array, length: Array, size: int) -> Array:
  """The matrix [size, size] that resizes a slice to `size`, bilinearly.

  As in PIL, the weights of an output pixel form a triangle around its centre.
  The triangle is as wide as the scale when the slice shrinks. It is cut at the
  slice's borders and normalised.
  """
  scale = length / size
  support = jnp.maximum(scale, 1.0)
  centre = (jnp.arange(size, dtype=jnp.float32) + 0.5) * scale + start
  pixel = jnp.arange(size, dtype=jnp.float32) + 0.5
  weight = jnp.maximum(
      1 - jnp.abs(pixel[None, :] - centre[:, None]) / support, 0)
  inside = (pixel > start) & (pixel < start + length)
  weight = jnp.where(inside[None, :], weight, 0)
  return weight / weight.sum(1, keepdims=True)


def crop_and_resize(image: Array, top: Array, left: Array, height: Array,
                    width: Array) -> Array:
  """Crops [H, W, C] to a box and resizes it bilinearly back to [H, W, C]."""
  return resize(image, *matrices(image, top, left, height, width))


def matrices(image: Array, top: Array, left: Array, height: Array,
              width: Array) -> tuple[Array, Array]:
  """The resizing matrices of a box, for rows [H, H] and for columns [W, W]."""
  return (_resize_matrix(top, height, image.shape[0]),
          _resize_matrix(left, width, image.shape[1]))


def resize(image: Array, rows: Array, columns: Array) -> Array:
  """Resizes [H, W, C] by the two matrices of `matrices`."""
  return jnp.einsum('ih,hwc,jw->ijc', rows, image, columns,
                    precision=precision.FULL)
