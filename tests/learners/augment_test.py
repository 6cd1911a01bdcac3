"""Every transform against PIL, which defines it; draws against their law.

These functions keep fractions, where PIL keeps 8 bits after each operation, so
pixels agree to a few levels of 255. eight_bit_colours_test checks those that
round as PIL does.
"""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance
import pytest

from fedu_jax.learners import augment
from fedu_jax.learners import crops

LEVEL = 1 / 255


@pytest.fixture(params=range(4))
def image(request):
  """A smooth, a noisy, a grey and a saturated picture, u8."""
  draw = np.random.RandomState(request.param)
  if request.param == 0:
    small = Image.fromarray(draw.randint(0, 256, (4, 4, 3), np.uint8))
    return np.asarray(small.resize((16, 16), Image.Resampling.BICUBIC))
  noise = draw.randint(0, 256, (16, 16, 3)).astype(np.uint8)
  if request.param == 2:
    noise[:] = noise[..., :1]
  if request.param == 3:
    noise = np.where(noise > 127, 255, 0).astype(np.uint8)
  return noise


def unit(image):
  return jnp.asarray(image, jnp.float32) / 255


def close(got, want, levels):
  difference = np.abs(np.asarray(got) - np.asarray(want, np.float32) / 255)
  assert difference.max() <= levels * LEVEL, difference.max() / LEVEL


@pytest.mark.parametrize('box', [
    (0, 0, 16, 16), (3, 5, 7, 4), (2, 0, 14, 16), (15, 15, 1, 1),
    (0, 3, 5, 13)])
def test_crop_and_resize(image, box):
  top, left, height, width = box
  want = Image.fromarray(image).crop(
      (left, top, left + width, top + height)).resize(
          (16, 16), Image.Resampling.BILINEAR)
  got = crops.crop_and_resize(unit(image), *map(float, box))
  close(got, want, 1.5)


@pytest.mark.parametrize('factor', [0.0, 0.2, 0.7, 1.0, 1.3, 1.8])
@pytest.mark.parametrize('name, enhance', [
    ('brightness', ImageEnhance.Brightness),
    ('contrast', ImageEnhance.Contrast),
    ('saturation', ImageEnhance.Color)])
def test_enhancements(image, name, enhance, factor):
  want = enhance(Image.fromarray(image)).enhance(factor)
  got = getattr(augment, f'adjust_{name}')(unit(image), factor)
  close(got, want, 2.1)


def test_grey(image):
  close(augment.grey(unit(image))[..., 0], Image.fromarray(image).convert('L'),
        1.01)


@pytest.mark.parametrize('shift', [-0.5, -0.2, -0.03, 0.0, 0.1, 0.2, 0.5])
def test_hue_is_the_textbooks(image, shift):
  """It agrees with the standard library's HSV, which does not round."""
  want = [[colorsys.hsv_to_rgb((h + shift) % 1, s, v)
           for h, s, v in (colorsys.rgb_to_hsv(*p) for p in row)]
          for row in np.asarray(image) / 255]
  np.testing.assert_allclose(augment.adjust_hue(unit(image), shift), want,
                             atol=1e-5)


@pytest.mark.parametrize('shift', [-0.2, 0.1, 0.2])
def test_hue_is_pils(image, shift):
  """It agrees with torchvision's conversion to PIL's 8-bit HSV. Its hue has 255
  levels, so a saturated pixel may be off by 6 in 255, and by more where the
  rounding is in a corner.
  """
  hsv = np.array(Image.fromarray(image).convert('HSV'))
  hsv[..., 0] += np.int32(shift * 255).astype(np.uint8)
  want = np.asarray(Image.fromarray(hsv, 'HSV').convert('RGB'), np.float32)
  difference = np.abs(augment.adjust_hue(unit(image), shift) - want / 255)
  assert np.mean(difference) < 2 * LEVEL
  assert np.max(difference) < 16 * LEVEL


def test_jitter_applies_four_adjustments_in_a_random_order(image):
  """Any order may be drawn; each result is that of some order by hand."""
  strengths = dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
  orders = set()
  for seed in range(40):
    rng = jax.random.key(seed)
    got = augment.colour_jitter(unit(image), rng, **strengths)
    keys = jax.random.split(rng, 3)
    order = tuple(np.asarray(jax.random.permutation(keys[0], 4)))
    factors = jax.random.uniform(keys[1], (3,), minval=0.2, maxval=1.8)
    shift = jax.random.uniform(keys[2], minval=-0.2, maxval=0.2)
    steps = [lambda x: augment.adjust_brightness(x, factors[0]),
             lambda x: augment.adjust_contrast(x, factors[1]),
             lambda x: augment.adjust_saturation(x, factors[2]),
             lambda x: augment.adjust_hue(x, shift)]
    want = unit(image)
    for i in order:
      want = steps[i](want)
    np.testing.assert_allclose(got, want, atol=2e-5)
    orders.add(order)
  assert len(orders) > 15  # of 24


def test_crop_boxes_follow_torchvisions_law():
  keys = jax.random.split(jax.random.key(0), 20_000)
  top, left, height, width = map(np.asarray, jax.jit(jax.vmap(
      lambda key: jnp.stack(crops.crop_box(
          key, 32, 32, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)))))(keys).T)
  for x in (top, left, height, width):
    np.testing.assert_array_equal(x, np.round(x))  # whole pixels
  assert (top >= 0).all() and (top + height <= 32).all()
  assert (left >= 0).all() and (left + width <= 32).all()
  # The same law drawn in NumPy, as torchvision states it.
  draw, boxes = np.random.RandomState(0), []
  while len(boxes) < 20_000:
    for _ in range(10):
      area = 1024 * draw.uniform(0.08, 1)
      aspect = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
      w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
      if 0 < w <= 32 and 0 < h <= 32:
        break
    else:
      w = h = 32
    boxes.append((draw.randint(33 - h), draw.randint(33 - w), h, w))
  for got, want in zip((top, left, height, width), np.array(boxes).T):
    assert abs(got.mean() - want.mean()) < 5 * want.std() / np.sqrt(10_000)
    assert abs(got.std() - want.std()) < 0.15


def test_crop_box_falls_back_to_the_centre():
  """An area that never fits takes the largest central crop of the ratio."""
  box = crops.crop_box(jax.random.key(0), 10, 30, scale=(5.0, 6.0),
                         ratio=(3 / 4, 4 / 3))
  assert [float(x) for x in box] == [0, (30 - 13) // 2, 10, 13]
  box = crops.crop_box(jax.random.key(0), 16, 16, scale=(5.0, 6.0),
                         ratio=(3 / 4, 4 / 3))
  assert [float(x) for x in box] == [0, 0, 16, 16]


@pytest.mark.parametrize('ratio', [(900.0, 1000.0), (0.001, 0.002)])
def test_no_crop_is_empty(ratio):
  """An aspect that would round a side to 0 pixels keeps one."""
  images = np.full((4, 8, 8, 3), 100, np.uint8)
  *_, height, width = crops.crop_box(jax.random.key(0), 8, 8,
                                       scale=(0.1, 0.2), ratio=ratio)
  assert height >= 1 and width >= 1
  views = augment.make_view(ratio=ratio)(images, jax.random.key(0))
  assert np.isfinite(views).all()


def test_probabilities():
  """Flips, jitter and greyscale have their frequencies."""
  off = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), jitter=0.0, flip=0.0,
             greyscale=0.0)
  images = jnp.broadcast_to(
      jnp.arange(48, dtype=jnp.uint8).reshape(1, 4, 4, 3) * 5, (4000, 4, 4, 3))
  plain = images.astype(jnp.float32) / 255

  def rate(**on):
    view = augment.make_view(**(off | on))
    views = jax.jit(view)(images, jax.random.key(0))
    return float(jnp.mean(jnp.any(jnp.abs(views - plain) > 1e-4, (1, 2, 3))))

  assert rate() == 0
  for name, chance in [('flip', 0.5), ('jitter', 0.8), ('greyscale', 0.2)]:
    assert abs(rate(**{name: chance}) - chance) < 0.03
  view = augment.make_view(**(off | dict(flip=1.0)))
  np.testing.assert_allclose(view(images[:1], jax.random.key(0)),
                             plain[:1, :, ::-1], atol=1e-5)


def test_views_are_per_image_in_range_and_repeatable():
  images = jnp.asarray(np.random.RandomState(0).randint(
      0, 256, (64, 8, 8, 3), np.uint8))
  view = jax.jit(augment.make_view())
  views = view(images, jax.random.key(0))
  assert views.shape == images.shape and views.dtype == jnp.float32
  assert views.min() >= -1e-6 and views.max() <= 1 + 1e-6
  np.testing.assert_array_equal(views, view(images, jax.random.key(0)))
  same = view(jnp.broadcast_to(images[:1], images.shape), jax.random.key(0))
  assert len(np.unique(np.asarray(same).reshape(64, -1), axis=0)) == 64


@pytest.mark.parametrize('eight_bit', [False, True])
def test_views_are_the_same_in_double_precision(eight_bit):
  images = np.random.RandomState(0).randint(0, 256, (8, 8, 8, 3), np.uint8)
  view = augment.make_view(eight_bit=eight_bit)
  single = view(images, jax.random.key(0))
  with jax.enable_x64(True):
    double = view(images, jax.random.key(0))
  assert single.dtype == double.dtype == jnp.float32
  np.testing.assert_allclose(single, double, atol=1e-5)
