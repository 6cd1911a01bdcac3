"""The colours of PIL, which keeps 8 bits a channel after every operation.

A pixel is float32 here and holds a whole number from 0 to 255. PIL computes in
C, partly in fixed point, partly in float; each function names its rounding.
They give PIL's values bit for bit, with two exceptions of one level. A blend
may differ where XLA fuses a product and a sum that C rounds one by one (1e-5 of
values). A resizing may differ where the side of the image is no power of two:
in 2 % of values, ties that PIL's rounded weights decide.
"""

import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array

_LUMA = (19595., 38470., 7471.)  # of 65536; PIL's L24, exact in float32
# The circle of hues has 510 parts here: PIL's byte counts it as 255.
_SIXTH = 85


def resize(image: Array, rows: Array, columns: Array) -> Array:
  """Resizes [H, W, C] with two matrices of weights, columns first.

  PIL rounds to the nearest level after each of the two passes.
  """
  def nearest(product):
    return jnp.floor(product + 0.5)
  highest = jax.lax.Precision.HIGHEST  # a weight of 22 bits, as PIL's
  wide = nearest(jnp.einsum('hwc,jw->hjc', image, columns, precision=highest))
  return nearest(jnp.einsum('ih,hjc->ijc', rows, wide, precision=highest))


def grey(image: Array) -> Array:
  """The luma of each pixel, to the nearest level: [H, W, 3] -> [H, W, 1]."""
  r, g, b = (image[..., i:i + 1] * weight for i, weight in enumerate(_LUMA))
  return jnp.floor((r + g + b + 32768) / 65536)


def mean(luma: Array) -> Array:
  """The mean of [H, W, 1], to the nearest whole level: a scalar.

  The sum is of whole numbers, because float32 holds none above 2^24, which an
  image of 257 by 257 pixels passes.
  """
  total = luma.astype(jnp.uint32).sum(dtype=jnp.uint32)
  return ((total + luma.size // 2) // luma.size).astype(luma.dtype)


def blend(image: Array, reference: Array, factor: Array) -> Array:
  """reference + factor * (image - reference), clipped to 0..255, cut off.

  The fraction is dropped: over random factors a value loses half a level.
  """
  mixed = reference + factor * (image - reference)
  return jnp.floor(jnp.clip(mixed, 0, 255))


def adjust_hue(image: Array, shift: Array) -> Array:
  """Turns the hue by `shift` turns, through PIL's HSV of 8 bits each."""
  hue, saturation, value = _to_hsv(image)
  # torchvision adds the byte of the cut-off number; a byte wraps at 256.
  hue = hue + jnp.trunc(shift * 255)
  hue = jnp.where(hue < 0, hue + 256, jnp.where(hue > 255, hue - 256, hue))
  return _to_rgb(hue, saturation, value)


def _to_hsv(image: Array) -> tuple[Array, Array, Array]:
  """Three of [H, W], whole numbers from 0 to 255; hue and saturation cut off.
  """
  high, low = image.max(-1), image.min(-1)
  spread = high - low
  safe = jnp.where(spread > 0, spread, 1)
  r, g, b = ((high - image[..., i]) / safe for i in range(3))
  reds, greens = image[..., 0] == high, image[..., 1] == high
  centre = jnp.where(reds, 0., jnp.where(greens, 2., 4.))
  plus = jnp.where(reds, b, jnp.where(greens, r, g))
  minus = jnp.where(reds, g, jnp.where(greens, b, r))
  # centre + plus - minus, of which one is 1: in this order the sum is rounded
  # once, as C does, which adds in double precision.
  sixths = jnp.where(plus == 1, centre + 1 - minus, centre - 1 + plus)
  # XLA would multiply by the rounded inverse of a constant; C divides.
  turns = jnp.where(spread > 0, sixths, 0) / jnp.where(spread > 0, 6., 1.)
  turns = jnp.where(turns < 0, 1 + turns, turns)
  return (_floor_of_255(turns),
          _floor_of_255(spread / jnp.where(high > 0, high, 1)), high)


def _floor_of_255(x: Array) -> Array:
  """The whole part of the exact product 255 x, which float32 would round."""
  larger = 256 * x
  product = larger - x
  rest = (larger - product) - x  # exactly what the subtraction rounded off
  whole = jnp.floor(product)
  return whole - ((product == whole) & (rest < 0))


def _to_rgb(hue: Array, saturation: Array, value: Array) -> Array:
  """Three of [H, W] -> [H, W, 3], to the nearest level.

  A channel is value (1 - saturation / 255 * weight / 85), where the weight is
  the distance of the hue from the part of the circle where the channel is full.
  """
  away = 2 * hue[..., None] + _SIXTH * jnp.array(
      [[[5., 3., 1.]]], hue.dtype)
  away = jnp.where(away >= 6 * _SIXTH, away - 6 * _SIXTH, away)
  weight = jnp.clip(jnp.minimum(away, 4 * _SIXTH - away), 0, _SIXTH)
  whole = 255 * _SIXTH
  # Below 2^24, so exact; and no quotient is halfway between two levels.
  top = value[..., None] * (whole - saturation[..., None] * weight)
  level = jnp.floor((2 * top + whole) / (2 * whole))
  rest = 2 * top + whole - level * (2 * whole)
  return level + (rest >= 2 * whole) - (rest < 0)
