"""Views of grey images and of images of 16 bits."""

import jax
import numpy as np
import pytest

from fedu_jax.learners import augment

EVERYTHING = dict(blur=(0.5, 0.5), solarise=(0.5, 0.5), vertical_flip=0.5)


def grey(dtype=np.uint8):
  return np.random.RandomState(0).randint(
      0, np.iinfo(dtype).max + 1, (24, 24, 24, 1)).astype(dtype)


@pytest.mark.parametrize('eight_bit', [False, True])
def test_a_grey_view_is_a_channel_of_the_view_in_three(eight_bit):
  """Hue, saturation and greyscale leave a grey image as it is."""
  images, rng = grey(), jax.random.key(0)
  view = jax.jit(augment.make_view(eight_bit=eight_bit, **EVERYTHING))
  one, three = view(images, rng), view(images.repeat(3, -1), rng)
  assert one.shape == images.shape and one.dtype == np.float32
  # Without rounding, the luma and the hue of equal channels differ by 1e-7.
  for i in range(3):
    difference = np.abs(one[..., 0] - three[..., i])
    assert np.mean(difference > 1e-5) < 1e-3


def test_a_grey_view_computes_no_hue():
  """It has no remainder, which the hue's circle needs."""
  view = augment.make_view(eight_bit=False)
  text = {c: str(jax.make_jaxpr(view)(
      np.zeros((2, 8, 8, c), np.uint8), jax.random.key(0))) for c in (1, 3)}
  assert ' rem ' in text[3] and ' rem ' not in text[1]
  assert len(text[1]) < 0.8 * len(text[3])


@pytest.mark.parametrize('channels', [1, 3])
def test_16_bits_are_not_rounded_to_8(channels):
  """Their views are those of the fractions, whatever `eight_bit` says."""
  shallow = grey().repeat(channels, -1)
  rng = jax.random.key(1)
  exact = jax.jit(augment.make_view(eight_bit=False, **EVERYTHING))(
      shallow, rng)
  for eight_bit in (False, True):
    view = jax.jit(augment.make_view(eight_bit=eight_bit, **EVERYTHING))
    np.testing.assert_allclose(
        view(shallow.astype(np.uint16) * 257, rng), exact, atol=1e-5)
  dark = np.arange(576, dtype=np.uint16).reshape(1, 24, 24, 1)
  dark = dark.repeat(channels, -1)  # three levels of 8 bits
  levels = jax.jit(augment.make_view(
      jitter=0.0, greyscale=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0)))(dark, rng)
  assert len(np.unique(np.round(np.asarray(levels)[..., 0] * 65535))) == 576
