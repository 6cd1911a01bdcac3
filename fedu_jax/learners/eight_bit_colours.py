"""PIL's colour operations, which keep 8 bits a channel after each operation.

A pixel is float32 here and holds a whole number from 0 to 255. PIL computes in
C, partly in fixed point and partly in float; each function says how it rounds.
The results are PIL's bit for bit, with two exceptions of one level. A blend may
differ where XLA fuses a product and a sum that C rounds separately (1e-5 of the
values). A resized image may differ if its side is not a power of two (2 % of
the values): PIL's rounded weights decide ties.
"""

import jax.numpy as jnp

from fedu_jax.core import precision
from fedu_jax.core.state import Array

_LUMA = (19595., 38470., 7471.)  # of 65536; PIL's L24, exact in float32
# The colour circle has 510 parts here. PIL's byte divides it into 255.
_SIXTH = 85


def resize(image: Array, rows: Array, columns: Array) -> Array:
  """Resizes [H, W, C] by two matrices, first along columns and then rows.

  PIL rounds to the nearest level after each of the two passes.
  """
  def nearest(product):
    return jnp.floor(product + 0.5)
  full = precision.FULL  # PIL's weights have 22 bits
  wide = nearest(jnp.einsum('hwc,jw->hjc', image, columns, precision=full))
  return nearest(jnp.einsum('ih,hjc->ijc', rows, wide, precision=full))


def grey(image: Array) -> Array:
  """The luma of each pixel, rounded to a level: [H, W, C] -> [H, W, 1]."""
  if image.shape[-1] == 1:
    return image
  r, g, b = (image[..., i:i + 1] * weight for i, weight in enumerate(_LUMA))
  return jnp.floor((r + g + b + 32768) / 65536)


def mean(luma: Array) -> Array:
  """The mean of [H, W, 1], rounded to a level, as a scalar.

  The sum is taken in integers. It can exceed 2^24 from 257 by 257 pixels on,
  and float32 does not hold every whole number above that.
  """
  total = luma.astype(jnp.uint32).sum(dtype=jnp.uint32)
  return ((total + luma.size // 2) // luma.size).astype(luma.dtype)


def blend(image: Array, reference: Array, factor: Array) -> Array:
  """reference + factor * (image - reference), clipped to 0..255, truncated.

  Over random factors the truncation lowers a value by half a level on average.
  """
  mixed = reference + factor * (image - reference)
  return jnp.floor(jnp.clip(mixed, 0, 255))


def adjust_hue(image: Array, shift: Array) -> Array:
  """Rotates the hue by `shift` turns, through PIL's HSV of 8 bits a channel."""
  hue, saturation, value = _to_hsv(image)
  # torchvision truncates the shift to a byte, and the sum of bytes wraps.
  hue = hue + jnp.trunc(shift * 255)
  hue = jnp.where(hue < 0, hue + 256, jnp.where(hue > 255, hue - 256, hue))
  return _to_rgb(hue, saturation, value)


def _to_hsv(image: Array) -> tuple[Array, Array, Array]:
  """Hue, saturation and value, [H, W] each, whole numbers from 0 to 255.

  Hue and saturation are truncated.
  """
  high, low = image.max(-1), image.min(-1)
  spread = high - low
  safe = jnp.where(spread > 0, spread, 1)
  r, g, b = ((high - image[..., i]) / safe for i in range(3))
  reds, greens = image[..., 0] == high, image[..., 1] == high
  centre = jnp.where(reds, 0., jnp.where(greens, 2., 4.))
  plus = jnp.where(reds, b, jnp.where(greens, r, g))
  minus = jnp.where(reds, g, jnp.where(greens, b, r))
  # centre + plus - minus. C adds in double precision, so it rounds once. Either
  # `plus` or `minus` is 1; adding it to `centre` first is exact here.
  sixths = jnp.where(plus == 1, centre + 1 - minus, centre - 1 + plus)
  # Not a constant 6: XLA would multiply by its rounded inverse. C divides.
  turns = jnp.where(spread > 0, sixths, 0) / jnp.where(spread > 0, 6., 1.)
  turns = jnp.where(turns < 0, 1 + turns, turns)
  return (_floor_of_255(turns),
          _floor_of_255(spread / jnp.where(high > 0, high, 1)), high)


def _floor_of_255(x: Array) -> Array:
  """The whole part of the exact product 255 x. A float32 product is rounded."""
  larger = 256 * x
  product = larger - x
  rest = (larger - product) - x  # the rounding error of the subtraction
  whole = jnp.floor(product)
  return whole - ((product == whole) & (rest < 0))


def _to_rgb(hue: Array, saturation: Array, value: Array) -> Array:
  """Hue, saturation and value, [H, W] each -> [H, W, 3], rounded to levels.

  A channel is value (1 - saturation / 255 * weight / 85). The weight is the
  distance of the hue from the hues where the channel is full.
  """
  away = 2 * hue[..., None] + _SIXTH * jnp.array(
      [[[5., 3., 1.]]], hue.dtype)
  away = jnp.where(away >= 6 * _SIXTH, away - 6 * _SIXTH, away)
  weight = jnp.clip(jnp.minimum(away, 4 * _SIXTH - away), 0, _SIXTH)
  whole = 255 * _SIXTH
  # All numbers are below 2^24, so exact. No quotient is halfway between levels.
  top = value[..., None] * (whole - saturation[..., None] * weight)
  level = jnp.floor((2 * top + whole) / (2 * whole))
  rest = 2 * top + whole - level * (2 * whole)
  return level + (rest >= 2 * whole) - (rest < 0)
