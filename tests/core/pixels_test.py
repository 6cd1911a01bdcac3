"""Pixels of 8 and 16 bits become floats from 0 to 1, and come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.core import pixels
from fedu_jax.evaluation import probes
from tests.helpers import small

ALL = {dtype: np.arange(np.iinfo(dtype).max + 1).astype(dtype)
       for dtype in pixels.DTYPES}


@pytest.mark.parametrize('dtype', pixels.DTYPES)
def test_black_is_0_white_is_1_and_every_level_comes_back(dtype):
  found = pixels.to_unit(ALL[dtype])
  assert isinstance(found, np.ndarray) and found.dtype == np.float32
  assert found[0] == 0 and found[-1] == 1 and (np.diff(found) > 0).all()
  np.testing.assert_array_equal(pixels.from_unit(found, dtype), ALL[dtype])
  there = jax.jit(pixels.to_unit)(ALL[dtype])
  assert there.dtype == jnp.float32
  np.testing.assert_allclose(there, found, rtol=2e-7)


def test_8_bits_have_the_bits_that_earlier_runs_had():
  """XLA and NumPy round the division differently; each keeps its own."""
  levels = ALL['uint8']
  np.testing.assert_array_equal(
      pixels.to_unit(levels), levels.astype(np.float32) / 255)
  for of in (lambda fn: fn, jax.jit):
    np.testing.assert_array_equal(
        of(pixels.to_unit)(jnp.asarray(levels)),
        of(lambda x: x.astype(jnp.float32) / 255)(jnp.asarray(levels)))


def test_features_of_16_bits_are_those_of_the_same_picture_in_8():
  images = small.images(6)
  deep = images.astype(np.uint16) * 257  # 255 * 257 is 65535
  encoder = small.online().encoder
  shallow, found = (probes.embed(
      probes.features, small.NETS.encoder, encoder, x, batch_size=4)
                    for x in (images, deep))
  np.testing.assert_allclose(found, shallow, rtol=1e-5, atol=1e-6)
