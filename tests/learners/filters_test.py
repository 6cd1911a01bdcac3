"""Blur and solarisation: torchvision's and PIL's values, and who gets them."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps
import pytest

from fedu_jax.learners import augment
from fedu_jax.learners import crops
from fedu_jax.learners import filters
from fedu_jax.learners import online_step
from tests.helpers import small

OFF = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0,
           greyscale=0.0)


def noise(*shape, seed=0):
  return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize('size, taps', [(19, 1), (32, 3), (96, 9), (224, 23)])
def test_a_point_becomes_byols_kernel(size, taps):
  """The kernel has BYOL's size, and is a Gaussian of sum 1."""
  image = np.zeros((size, size, 1), np.float32)
  image[size // 2, size // 2] = 1
  away = np.arange(taps) - taps // 2
  line = np.exp(-0.5 * (away / 1.7)**2)
  line /= line.sum()
  want = np.zeros((size, size))
  middle = slice(size // 2 - taps // 2, size // 2 + taps // 2 + 1)
  want[middle, middle] = np.outer(line, line)
  got = jax.jit(filters.blur)(image, 1.7)[..., 0]
  np.testing.assert_allclose(got, want, atol=1e-7)


def test_blur_is_torchvisions():
  """With the borders, in 8 bits and in fractions."""
  functional = pytest.importorskip('torchvision.transforms.functional')
  import torch
  image = noise(48, 48, 3)
  for sigma in (0.1, 0.8, 2.0):
    blur = lambda x: functional.gaussian_blur(
        torch.tensor(x.transpose(2, 0, 1)), [5, 5], [sigma, sigma]
    ).numpy().transpose(1, 2, 0)
    found = filters.blur(jnp.asarray(image, jnp.float32), sigma)
    np.testing.assert_allclose(found, blur(image.astype(np.float32)), atol=1e-3)
    assert np.mean(np.round(found) != blur(image)) < 1e-3


def test_an_even_image_stays_even():
  image = jnp.full((40, 40, 3), 0.3)
  np.testing.assert_allclose(filters.blur(image, 2.0), image, rtol=1e-6)


def test_solarise_is_pils():
  """For each level, in whole levels and in fractions."""
  image = np.arange(256, dtype=np.uint8).reshape(16, 16)
  want = np.asarray(ImageOps.solarize(Image.fromarray(image), 128))
  whole = image.astype(np.float32)[..., None]
  np.testing.assert_array_equal(filters.solarise(whole, 255)[..., 0], want)
  np.testing.assert_allclose(filters.solarise(whole / 255, 1)[..., 0],
                             want / 255, atol=1e-6)


def test_blur_takes_fewer_operations_than_a_matrix_product():
  """At 224 pixels, by the compiler's count."""
  def flops(fn, *args):
    return jax.jit(fn).lower(*args).compile().cost_analysis()['flops']
  image = jnp.zeros((224, 224, 3))
  matrix = jnp.zeros((224, 224))
  assert 0 < flops(filters.blur, image, 1.0) < 0.25 * flops(
      crops.resize, image, matrix, matrix)


@pytest.mark.parametrize('together', [False, True])
def test_first_and_second_views_have_their_own_probabilities(together):
  images = noise(6, 24, 24, 3)
  view = augment.make_view(**OFF, blur=(1.0, 0.0), solarise=(0.0, 1.0),
                           blur_sigma=(1.0, 1.0))
  nets = small.NETS._replace(together=together)
  x1, x2 = jax.jit(lambda *args: online_step.draw_views(nets, view, *args))(
      images, jax.random.key(0))
  for one, first, second in zip(images.astype(np.float32), x1, x2):
    np.testing.assert_allclose(
        first * 255, jnp.round(filters.blur(one, 1.0)), atol=1e-3)
    np.testing.assert_allclose(
        second * 255, filters.solarise(one, 255), atol=1e-3)


def test_a_view_of_ones_own_need_not_know_which_it_draws():
  images = noise(4, 6, 6, 3)
  for together in (False, True):
    x1, x2 = online_step.draw_views(
        small.NETS._replace(together=together), small.view, images,
        jax.random.key(0))
    keys = jax.random.split(jax.random.key(0))
    np.testing.assert_allclose(x1, small.view(images, keys[0]), atol=1e-6)
    np.testing.assert_allclose(x2, small.view(images, keys[1]), atol=1e-6)


def test_probabilities():
  images = jnp.broadcast_to(noise(1, 20, 20, 1), (4000, 20, 20, 1))
  plain = images.astype(jnp.float32) / 255

  def rate(second=False, **on):
    views = jax.jit(augment.make_view(**OFF, **on))(
        images, jax.random.key(0), second)
    return float(jnp.mean(jnp.any(jnp.abs(views - plain) > 1e-4, (1, 2, 3))))

  assert abs(rate(vertical_flip=0.3) - 0.3) < 0.03
  pairs = dict(blur=(0.7, 0.2), blur_sigma=(1.0, 2.0))
  assert abs(rate(**pairs) - 0.7) < 0.03
  assert abs(rate(True, **pairs) - 0.2) < 0.03
  flipped = augment.make_view(**OFF, vertical_flip=1.0)
  np.testing.assert_allclose(flipped(images[:1], jax.random.key(0)),
                             plain[:1, ::-1], atol=1e-6)


def test_other_draws_stay_where_these_are_off():
  """A run that began without these fields draws the views it drew."""
  images, rng = noise(8, 24, 24, 3), jax.random.key(3)
  plain = jax.jit(augment.make_view())(images, rng)
  same = jax.jit(augment.make_view(solarise=(0.0, 1.0)))(images, rng)
  np.testing.assert_array_equal(plain, same)
