"""Dense layers: what bfloat16 rounds, and what it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.models import layers
from tests.helpers import products


def narrow(shape, seed):
  """Draws numbers that bfloat16 holds, as float32."""
  drawn = np.random.RandomState(seed).randn(*shape).astype(np.float32)
  return jnp.asarray(drawn).astype(jnp.bfloat16).astype(jnp.float32)


@pytest.mark.parametrize('compiled', [False, True])
def test_a_bfloat16_layer_rounds_no_sum(compiled):
  """Against float64, of the output and of both gradients.

  A sum that is rounded to bfloat16 is off by up to 2e-3.
  """
  x, kernel, d_y = (narrow(shape, i) for i, shape in enumerate((
      (64, 96), (96, 32), (64, 32))))
  layer = layers.Linear(32, 'bfloat16')

  def parts(x, kernel, d_y):
    y, back = jax.vjp(lambda x, kernel: layer.apply(
        {'params': {'kernel': kernel, 'bias': jnp.zeros(32)}}, x), x, kernel)
    return y, *back(d_y)
  found = (jax.jit(parts) if compiled else parts)(x, kernel, d_y)
  x, kernel, d_y = (np.asarray(a, np.float64) for a in (x, kernel, d_y))
  for got, want in zip(found, (x @ kernel, d_y @ kernel.T, x.T @ d_y),
                       strict=True):
    assert got.dtype == jnp.float32
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_its_products_have_narrow_factors_and_wide_sums():
  """Forward and backward, also where the input is bfloat16."""
  layer = layers.Linear(8, 'bfloat16')
  params = layer.init(jax.random.key(0), jnp.zeros((1, 4)))
  for dtype in ('float32', 'bfloat16'):
    x = jnp.zeros((3, 4), dtype)
    value = lambda params, x: layer.apply(params, x).sum()
    found = products.of(jax.grad(value, (0, 1)), params, x)
    assert len(found) == 3
    assert {p.factors for p in found} == {('bfloat16', 'bfloat16')}
    assert {p.dtype for p in found} == {'float32'}
    d_params, d_x = jax.grad(value, (0, 1))(params, x)
    assert d_x.dtype == dtype
    assert d_params['params']['kernel'].dtype == jnp.float32


def test_a_rounded_kernel_is_used_and_the_other_gets_the_gradient():
  layer = layers.Linear(8, 'bfloat16')
  x, kernel = narrow((4, 6), 0), narrow((6, 8), 1)

  def parts(kernel, more):
    y, back = jax.vjp(lambda x, kernel: layer.apply(
        {'params': {'kernel': kernel, 'bias': jnp.zeros(8)}} | more, x),
                      x, kernel)
    return y, *back(jnp.ones((4, 8)))
  for got, want in zip(
      parts(0 * kernel, {'rounded': {'kernel': kernel.astype('bfloat16')}}),
      parts(kernel, {}), strict=True):
    assert got.dtype == want.dtype and np.abs(want).max() > 1
    np.testing.assert_array_equal(got, want)
