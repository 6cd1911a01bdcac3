"""BatchNorm's own backward pass equals JAX's, for all three results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.models import batchnorm

EPSILON = 1e-5


def plain(x, scale, bias):
  """The definition; JAX derives its gradient."""
  wide = x.astype(scale.dtype)
  axes = tuple(range(x.ndim - 1))
  mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
  row = lambda v: v.reshape(mean.shape)
  y = (wide - mean) / jnp.sqrt(var + EPSILON) * row(scale) + row(bias)
  return y.astype(x.dtype), mean.reshape(-1), var.reshape(-1)


def ours(x, scale, bias):
  return batchnorm.normalise(x, scale, bias, EPSILON)


@pytest.mark.parametrize('shape', [(4, 5, 6, 3), (7, 2), (2, 1)])
@pytest.mark.parametrize('dtype, params, bound', [
    ('float64', 'float64', 1e-10), ('float32', 'float32', 1e-4),
    ('bfloat16', 'float32', 0.05)])
def test_values_and_gradients(shape, dtype, params, bound):
  with jax.enable_x64(dtype == 'float64'):
    rngs = jax.random.split(jax.random.key(0), 6)
    x = (2 + 3 * jax.random.normal(rngs[0], (2, *shape), params)).astype(dtype)
    scale, bias, *weights = (
        jax.random.normal(rng, (2, shape[-1]), params) for rng in rngs[1:5])
    weight = jax.random.normal(rngs[5], x.shape, params)

    def gradients(fn):
      def objective(x, scale, bias, weight, of_mean, of_var):
        y, mean, var = fn(x, scale, bias)
        value = ((y.astype(params) * weight).sum() + (mean * of_mean).sum()
                 + (var * of_var).sum())
        return value, (y, mean, var)
      # Two clients at once, as vmap runs them.
      return jax.jit(jax.vmap(jax.grad(
          objective, argnums=(0, 1, 2), has_aux=True)))(
              x, scale, bias, weight, *weights)
    found, expected = gradients(ours), gradients(plain)
    assert [a.dtype for a in jax.tree.leaves(found)] == [
        a.dtype for a in jax.tree.leaves(expected)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a.astype(params), b.astype(params), rtol=bound,
        atol=bound * float(jnp.abs(b).max())), found, expected)


def test_a_channel_that_does_not_vary():
  """Its gradient is finite, and its output is the bias."""
  x, one = jnp.ones((4, 2, 2, 3)), jnp.ones(3)
  y, _, var = ours(x, one, one)
  np.testing.assert_array_equal(y, 1)
  np.testing.assert_array_equal(var, 0)
  grads = jax.grad(lambda *a: (ours(*a)[0] * x).sum(), (0, 1, 2))(x, one, one)
  assert all(np.isfinite(g).all() for g in grads)
