"""BatchNorm's own backward pass equals JAX's, for all three results."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.models import batchnorm
from fedu_jax.models import batchnorm_few_passes

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
  y, mean, var = batchnorm.normalise(x, scale, bias, EPSILON)
  return y, mean[0], var[0]


@pytest.fixture(params=['cpu', 'accelerator'])
def passes(request, monkeypatch):
  """Runs the passes of a kind of device, on this one."""
  if request.param == 'accelerator':
    monkeypatch.setattr(batchnorm, 'batchnorm_plain', batchnorm_few_passes)
    jax.clear_caches()  # of traces with the other passes
    yield
    jax.clear_caches()
  else:
    yield


@pytest.mark.parametrize('shape', [(4, 5, 6, 3), (7, 2), (2, 1)])
@pytest.mark.parametrize('dtype, params, bound', [
    ('float64', 'float64', 1e-10), ('float32', 'float32', 1e-4),
    ('bfloat16', 'float32', 0.05)])
def test_values_and_gradients(shape, dtype, params, bound, passes):
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


@pytest.mark.parametrize('dtype, bound', [('float32', 1e-4),
                                          ('bfloat16', 0.02)])
def test_views_with_a_relu(dtype, bound, passes):
  """Two batches in one call equal two calls with a ReLU behind each."""
  rng = np.random.RandomState(0)
  x = jnp.asarray(3 + rng.randn(2, 6, 5, 5, 4), dtype)
  scale, bias = (jnp.asarray(rng.randn(4), jnp.float32) for _ in range(2))
  weight = jnp.asarray(rng.randn(*x.shape), jnp.float32)

  def at_once(x, scale, bias):
    y, mean, var = batchnorm.normalise(
        x.reshape(12, 5, 5, 4), scale, bias, EPSILON, 2, True)
    y = y.reshape(x.shape)
    return (y * weight).sum() + (mean * var).sum(), (y, mean, var)

  def in_turn(x, scale, bias):
    y, mean, var = jax.vmap(plain, (0, None, None))(x, scale, bias)
    y = nn.relu(y)
    return (y * weight).sum() + (mean * var).sum(), (y, mean, var)
  found, expected = (jax.jit(jax.grad(fn, argnums=(0, 1, 2), has_aux=True))(
      x, scale, bias) for fn in (at_once, in_turn))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(
      a.astype(np.float32), b.astype(np.float32), rtol=bound,
      atol=bound * float(jnp.abs(b).max())), found, expected)


def test_views_are_tracked_in_turn():
  rng = np.random.RandomState(1)
  x = jnp.asarray(rng.randn(6, 3, 3, 2) * [1, 2] + 1, jnp.float32)
  norm = batchnorm.BatchNorm(relu=True)
  variables = norm.init(jax.random.key(0), x, train=True)

  def run(variables, x, **more):
    y, changed = norm.apply(variables, x, train=True, mutable=['batch_stats'],
                            **more)
    return y, {**variables, **changed}
  y, after = run(variables, x, views=2)
  y1, between = run(variables, x[:3])
  y2, both = run(between, x[3:])
  np.testing.assert_allclose(y, jnp.concatenate([y1, y2]), atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
               after, both)


def test_moments_of_maps_far_from_zero():
  """In bfloat16, sums about 0 lose less than the maps' own rounding did."""
  x = 30 + np.random.RandomState(0).randn(1, 4096, 1)
  narrow = jnp.asarray(x, jnp.bfloat16)
  one = jnp.ones(1)
  _, _, mean, var, _ = batchnorm_few_passes.forward(
      narrow, one, one, epsilon=EPSILON, relu=False)
  kept = np.asarray(narrow, np.float64)
  np.testing.assert_allclose(mean[0], kept.mean(1)[0], rtol=1e-6)
  lost_before = abs(kept.var() - x.var()) / x.var()
  assert abs(float(var[0, 0]) - kept.var()) / kept.var() < lost_before / 10
