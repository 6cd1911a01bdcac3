"""The max-pool of the ImageNet stem, against Flax's."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.models.max_pool import max_pool


def flaxen(x):
  return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


@pytest.mark.parametrize('shape', [(2, 8, 8, 3), (1, 7, 5, 2), (3, 1, 2, 1)])
def test_values_and_gradient_are_those_of_xlas_operation(shape):
  draw = np.random.RandomState(0)
  # Many pixels are equal, so the first of them must get the gradient.
  x = jnp.asarray(draw.randint(-2, 3, shape), jnp.float32)
  (ours, back), (theirs, back_theirs) = (
      jax.vjp(f, x) for f in (max_pool, flaxen))
  np.testing.assert_array_equal(ours, theirs)
  d_y = draw.randint(1, 9, ours.shape).astype(np.float32)
  np.testing.assert_array_equal(back(d_y)[0], back_theirs(d_y)[0])


def test_nan_passes():
  """Else a network with a broken stem would go on."""
  x = jnp.ones((1, 4, 4, 1)).at[0, 3, 3, 0].set(jnp.nan)
  np.testing.assert_array_equal(
      jnp.isnan(max_pool(x))[0, :, :, 0], [[False, False], [False, True]])
