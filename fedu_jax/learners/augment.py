"""Random views of images, as SimCLR's and BYOL's, drawn inside jit.

Each transform is written for ONE image, [H, W, C] f32, and follows torchvision
on PIL images. PIL keeps 8 bits a channel after each operation: it rounds
resized pixels and luma, and truncates blends (brightness, contrast, saturation)
and the hue and saturation of HSV. With `ViewConfig.eight_bit`, the default,
views do the same. Without it they keep fractions, and each blend leaves an
image 0.45 to 0.47 levels of 255 brighter than PIL's on average. Images of 16
bits are always computed in fractions.

A grey image, C = 1, has no colour. Saturation, hue and greyscale would leave it
as it is, so they are left out; the other draws are those of a colour image.

An image has a first and a second view. The blur and the solarisation of a
`ViewConfig` have a probability for each, so that the two can differ, as BYOL's.

Functions of this module that take an image compute in 0..1, without rounding.
Those of `eight_bit_colours` compute in whole levels, 0..255. Draws use 32 bits,
so that views are the same with jax_enable_x64.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedu_jax.core import argument_checks
from fedu_jax.core import pixels
from fedu_jax.core import precision
from fedu_jax.core.state import Array
from fedu_jax.learners import crops
from fedu_jax.learners import eight_bit_colours as levels
from fedu_jax.learners import filters

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as PIL's convert('L')
_uniform = functools.partial(jax.random.uniform, dtype=jnp.float32)


class ViewConfig(NamedTuple):
  """The distribution of views; the defaults are the released code's.

  A pair has the values of an image's first and second view.
  """
  scale: tuple[float, float] = (0.08, 1.0)  # crop's area / image's area
  ratio: tuple[float, float] = (3 / 4, 4 / 3)  # crop's width / height
  flip: float = 0.5  # probability of a horizontal flip
  vertical_flip: float = 0.0  # probability
  jitter: float = 0.8  # probability of the four colour adjustments
  brightness: float = 0.8  # factor uniform in 1 -+ this, not below 0
  contrast: float = 0.8
  saturation: float = 0.8
  hue: float = 0.2  # shift uniform in -+ this, in turns of the colour circle
  greyscale: float = 0.2  # probability
  blur: tuple[float, float] = (0.0, 0.0)  # probabilities
  blur_sigma: tuple[float, float] = (0.1, 2.0)  # its deviation, in pixels
  solarise: tuple[float, float] = (0.0, 0.0)  # probabilities
  eight_bit: bool = True  # uint8: whole levels after each operation, as in PIL


class Arithmetic(NamedTuple):
  """The functions that compute colours: in fractions, or in 8 bits as PIL."""
  resize: Callable[[Array, Array, Array], Array]  # (image, rows, columns)
  grey: Callable[[Array], Array]
  mean: Callable[[Array], Array]  # takes a luma
  blend: Callable[[Array, Array, Array], Array]
  adjust_hue: Callable[[Array, Array], Array]


def grey(image: Array) -> Array:
  """The luma of each pixel, [H, W, C] -> [H, W, 1]."""
  if image.shape[-1] == 1:
    return image
  return jnp.matmul(image, jnp.array(_LUMA, image.dtype)[:, None],
                    precision=precision.FULL)


def blend(image: Array, reference: Array, factor: Array) -> Array:
  """factor * image + (1 - factor) * reference, clipped to 0..1."""
  return jnp.clip(factor * image + (1 - factor) * reference, 0, 1)


def adjust_brightness(image: Array, factor: Array) -> Array:
  """Blends with black."""
  return blend(image, jnp.zeros_like(image), factor)


def adjust_contrast(image: Array, factor: Array) -> Array:
  """Blends with the image's mean luma."""
  return blend(image, jnp.full_like(image, 1) * grey(image).mean(), factor)


def adjust_saturation(image: Array, factor: Array) -> Array:
  """Blends with the greyscale image."""
  return blend(image, jnp.broadcast_to(grey(image), image.shape), factor)


def adjust_hue(image: Array, shift: Array) -> Array:
  """Rotates the hue by `shift` turns of the colour circle, through HSV."""
  high, low = image.max(-1), image.min(-1)
  spread = high - low
  safe = jnp.where(spread > 0, spread, 1)
  r, g, b = ((high - image[..., i]) / safe for i in range(3))
  hue = jnp.where(image[..., 0] == high, b - g,
                  jnp.where(image[..., 1] == high, 2 + r - b, 4 + g - r)) / 6
  hue = jnp.where(spread > 0, hue, 0) + shift
  # A channel is high - spread * weight. The weight is the channel's distance,
  # in sixths of the circle and at most 1, from the hues where it is full.
  sixth = 6 * hue[..., None] + jnp.array(
      [5., 3., 1.], hue.dtype).reshape(1, 1, 3)
  away = jnp.mod(sixth, 6)
  weight = jnp.clip(jnp.minimum(away, 4 - away), 0, 1)
  return high[..., None] - spread[..., None] * weight


UNROUNDED = Arithmetic(crops.resize, grey, jnp.mean, blend, adjust_hue)
EIGHT_BIT = Arithmetic(levels.resize, levels.grey, levels.mean, levels.blend,
                       levels.adjust_hue)


def colour_jitter(image: Array, rng: Array, *, brightness: float,
                  contrast: float, saturation: float, hue: float,
                  arithmetic: Arithmetic = UNROUNDED) -> Array:
  """Applies the four adjustments in random order, with random strengths.

  Under vmap a switch computes all its branches. Therefore the three adjustments
  that are blends share one body, which runs before and after the hue's place in
  the order, and the hue is computed once. A hue of strength 0 is left out, as
  in torchvision, because the conversion to PIL's HSV and back changes an image.

  Args:
    image: [H, W, C] f32; of a grey one, brightness and contrast change.
    rng: a key.
    brightness: see `ViewConfig`, as are the next three.
    contrast: see there.
    saturation: see there.
    hue: see there.
    arithmetic: UNROUNDED or EIGHT_BIT, which also sets the image's range.

  Returns:
    The adjusted image, [H, W, C] f32.
  """
  rng_order, rng_factor, rng_hue = jax.random.split(rng, 3)
  strength = jnp.array([brightness, contrast, saturation])
  factors = _uniform(
      rng_factor, (3,), minval=jnp.maximum(1 - strength, 0),
      maxval=1 + strength)
  shift = _uniform(rng_hue, minval=-hue, maxval=hue)
  order = jax.random.permutation(rng_order, 4)  # 3 is the hue

  def adjust(image, which):
    luma = arithmetic.grey(image)
    reference = jnp.select(
        [which == 0, which == 1],
        [jnp.zeros_like(luma),
         jnp.full_like(luma, 1) * arithmetic.mean(luma)], luma)
    return arithmetic.blend(image, reference, factors[which])

  if image.shape[-1] == 1:
    first = jnp.argmax(order == 1) < jnp.argmax(order == 0)
    return adjust(adjust(image, first.astype(int)), 1 - first.astype(int))
  place = jnp.argmax(order == 3)  # the number of blends before the hue
  blends = order[jnp.nonzero(order != 3, size=3)[0]]
  for i in range(3):
    image = jnp.where(i < place, adjust(image, blends[i]), image)
  if hue > 0 or arithmetic is UNROUNDED:
    image = arithmetic.adjust_hue(image, shift)
  for i in range(3):
    image = jnp.where(i >= place, adjust(image, blends[i]), image)
  return image


def _view(image: Array, rng: Array, second: Array | bool,
          config: ViewConfig) -> Array:
  """One random view of one image, [H, W, C] -> [H, W, C] f32 in 0..1."""
  rng_box, rng_jitter, rng_chance = jax.random.split(rng, 3)
  eight_bit = config.eight_bit and image.dtype == jnp.uint8
  arithmetic = EIGHT_BIT if eight_bit else UNROUNDED
  image = image.astype(jnp.float32) if eight_bit else pixels.to_unit(image)
  box = crops.crop_box(rng_box, *image.shape[:2], scale=config.scale,
                       ratio=config.ratio)
  image = arithmetic.resize(image, *crops.matrices(image, *box))
  chance = _uniform(rng_chance, (3,))
  # Draws of their own: views without these operations keep their bits.
  more, at = _uniform(jax.random.fold_in(rng, 3), (4,)), config.blur_sigma
  if config.flip > 0:
    image = jnp.where(chance[0] < config.flip, image[:, ::-1], image)
  if config.vertical_flip > 0:
    image = jnp.where(more[0] < config.vertical_flip, image[::-1], image)
  if config.jitter > 0:
    jittered = colour_jitter(
        image, rng_jitter, brightness=config.brightness,
        contrast=config.contrast, saturation=config.saturation, hue=config.hue,
        arithmetic=arithmetic)
    image = jnp.where(chance[1] < config.jitter, jittered, image)
  if config.greyscale > 0 and image.shape[-1] > 1:
    image = jnp.where(chance[2] < config.greyscale,
                      jnp.broadcast_to(arithmetic.grey(image), image.shape),
                      image)
  if max(config.blur) > 0:
    blurred = filters.blur(image, at[0] + (at[1] - at[0]) * more[1])
    image = jnp.where(more[2] < _of(config.blur, second),
                      jnp.round(blurred) if eight_bit else blurred, image)
  if max(config.solarise) > 0:
    image = jnp.where(
        more[3] < _of(config.solarise, second),
        filters.solarise(image, 255 if eight_bit else 1), image)
  return image / 255 if eight_bit else image


def _of(pair: tuple[float, float], second: Array | bool) -> Array:
  """The value of a pair for an image's first or second view."""
  return jnp.where(second, pair[1], pair[0])


def simclr_view(images: Array, rng: Array, second: Array | bool = False, *,
                config: ViewConfig = ViewConfig()) -> Array:
  """One random view of each image, [B, H, W, C] -> [B, H, W, C] f32.

  Args:
    images: [B, H, W, C] u8 or u16, with 1 or 3 channels.
    rng: a key.
    second: [] bool, whether these are the images' second views.
    config: the distribution.

  Raises:
    ValueError: the images have another shape or dtype.
  """
  argument_checks.pixels(images, channels=pixels.CHANNELS)
  rngs = jax.random.split(rng, len(images))
  return jax.vmap(functools.partial(_view, second=second, config=config))(
      images, rngs)


def make_view(**choices) -> Callable[..., Array]:
  """Binds the fields of a ViewConfig: returns (images, rng, second) -> views.
  """
  return functools.partial(simclr_view, config=ViewConfig(**choices))
