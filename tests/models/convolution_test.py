"""The convolution and its hand-written gradients equal XLA's."""

import re

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.models.convolution import conv
from fedu_jax.models.convolution import xla_kernel_gradient


def reference(x, kernel, stride, padding):
  return lax.conv_general_dilated(
      x, kernel, (stride, stride), [(padding, padding)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def draw(shape, dtype, seed):
  return jnp.asarray(np.random.RandomState(seed).randn(*shape)).astype(dtype)


@pytest.mark.parametrize('dtype, tolerance', [
    ('float64', 1e-12), ('float32', 1e-4), ('bfloat16', 0.1)])
@pytest.mark.parametrize('size', [2, 3, 7, 8])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('k', [1, 3])
def test_value_and_gradients(k, stride, size, dtype, tolerance):
  """Kernels 1 and 3, strides 1 and 2, odd and even, small maps and large."""
  with jax.enable_x64(dtype == 'float64'):
    x = draw((2, size, size + 1, 3), dtype, 0)
    kernel = draw((k, k, 3, 5), dtype, 1)
    got, back = jax.vjp(lambda x, w: conv(x, w, stride, k // 2), x, kernel)
    want, back_want = jax.vjp(
        lambda x, w: reference(x, w, stride, k // 2), x, kernel)
    assert got.dtype == want.dtype
    g = draw(want.shape, dtype, 2)
    for a, b in zip((got, *back(g)), (want, *back_want(g)), strict=True):
      assert a.dtype == b.dtype
      a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
      np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize('k, size, stride, channels, dtype', [
    *((k, size, stride, 4, dtype) for k in (1, 3)
      for size, stride in ((8, 1), (9, 1), (8, 2), (9, 2))
      for dtype in ('float64', 'float32', 'bfloat16')),
    (3, 4, 1, 4, 'float64'),
    (3, 8, 1, 16, 'float64'), (3, 8, 1, 16, 'bfloat16'),
    (3, 8, 1, 17, 'float64'), (3, 8, 1, 17, 'bfloat16'),
    (3, 20, 1, 16, 'float32'), (3, 8, 2, 16, 'float32')])
def test_per_client_kernels_in_a_scan(k, size, stride, channels, dtype):
  """vmap over kernels, under jit, in a scan, gives what XLA gives one by one.
  """
  tolerance = {'float64': 1e-12, 'float32': 1e-4, 'bfloat16': 0.05}[dtype]
  with jax.enable_x64(dtype == 'float64'):
    x = draw((3, 2, size, size, channels), dtype, 0)
    kernels = draw((3, k, k, channels, channels), dtype, 1) / channels

    def grads(convolve, x, kernel):
      def step(kernel, _):
        value = lambda x, w: jnp.sum(jnp.sin(convolve(x, w, stride, k // 2)))
        d_x, d_w = jax.grad(value, (0, 1))(x, kernel)
        return kernel - d_w / size**2, d_x
      return lax.scan(step, kernel, length=2)

    together = jax.jit(jax.vmap(lambda *a: grads(conv, *a)))(x, kernels)
    for i in range(3):
      alone = jax.jit(lambda *a: grads(reference, *a))(x[i], kernels[i])
      for a, b in zip(together, alone, strict=True):
        a, b = np.asarray(a[i], np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize('dtype, tolerance', [
    ('float64', 1e-12), ('float32', 1e-4)])
@pytest.mark.parametrize('size, channels', [
    (2, 17), (4, 17), (8, 17), (12, 17), (20, 17), (20, 64)])
def test_winograd(size, channels, dtype, tolerance):
  """Enough channels for Winograd's method: 2x2 and 4x4 tiles, sliced batches.
  """
  check_gradients((11, size, size, channels), channels + 1, 1, dtype, tolerance)


@pytest.mark.parametrize('dtype, tolerance', [
    ('float64', 1e-12), ('float32', 1e-4)])
@pytest.mark.parametrize('size, channels, features', [
    (5, 1, 1), (9, 3, 16), (32, 16, 16), (8, 20, 3)])
def test_rows(size, channels, features, dtype, tolerance):
  """Few channels: whole and, at 32 pixels, in slices, the last one padded."""
  check_gradients((11, size, size, channels), features, 1, dtype, tolerance)


@pytest.mark.parametrize('dtype, tolerance', [
    ('float64', 1e-12), ('float32', 1e-4)])
def test_a_kernels_gradient_in_slices(dtype, tolerance):
  """Patches of 11 images make two slices of 6, the last one padded."""
  check_gradients((11, 32, 32, 64), 3, 2, dtype, tolerance)


def check_gradients(shape, features, stride, dtype, tolerance):
  """Checks a 3x3 convolution and its gradients against XLA's in float64."""
  with jax.enable_x64(True):
    x = draw(shape, dtype, 0)
    kernel = draw((3, 3, shape[-1], features), dtype, 1)
    got, back = jax.vjp(lambda x, w: conv(x, w, stride, 1), x, kernel)
    want, back_want = jax.vjp(
        lambda x, w: reference(x, w, stride, 1), x.astype('float64'),
        kernel.astype('float64'))
    pairs = zip((got, *back(want.astype(dtype))), (want, *back_want(want)),
                strict=True)
    for a, b in pairs:
      assert a.dtype == dtype
      np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


def test_exact_is_as_near_to_float64_as_a_plain_convolution():
  """The fast method of this layer is Winograd's, and it is not as near."""
  with jax.enable_x64(True):
    x, kernel, d_y = (draw(shape, 'float32', i) for i, shape in enumerate((
        (4, 16, 16, 64), (3, 3, 64, 64), (4, 16, 16, 64))))

    def error(fn):
      def parts(dtype):
        y, back = jax.vjp(fn, x.astype(dtype), kernel.astype(dtype))
        return y, *back(d_y.astype(dtype))
      return np.array([jnp.linalg.norm((a - b).ravel())
                       / jnp.linalg.norm(b.ravel()) for a, b in zip(
                           jax.jit(parts, static_argnums=0)('float32'), want)])
    y, back = jax.vjp(lambda x, w: reference(x, w, 1, 1),
                      x.astype('float64'), kernel.astype('float64'))
    want = y, *back(d_y.astype('float64'))
    plain = error(lambda x, w: reference(x, w, 1, 1))
    exact = error(lambda x, w: conv(x, w, 1, 1, True))
    fast = error(lambda x, w: conv(x, w, 1, 1))
  assert (exact < 2 * plain).all() and (exact < 1e-6).all(), (exact, plain)
  assert (fast > 2 * exact).all() and (fast < 1e-5).all(), (fast, exact)


def test_exact_asks_other_backends_for_whole_products():
  """No TF32 on a GPU, forward or backward."""
  def lowered(exact):
    def grads(x, kernel):
      return jax.vjp(lambda x, w: conv(x, w, 1, 1, exact), x, kernel)[1](x)
    x, kernel = draw((2, 8, 8, 16), 'float32', 0), draw((3, 3, 16, 16),
                                                        'float32', 1)
    return jax.jit(grads).trace(x, kernel).lower(
        lowering_platforms=('cuda',)).as_text()
  convolutions = [line for line in lowered(True).splitlines()
                  if 'stablehlo.convolution' in line]
  assert len(convolutions) in (2, 3)
  assert all('HIGHEST' in x for x in convolutions)
  assert 'HIGHEST' not in lowered(False)


def test_other_backends_get_xlas_convolution():
  """Lowered for a GPU it is one convolution forward, two back, and no product.
  """
  def grads(x, kernel):
    return jax.vjp(lambda x, w: conv(x, w, 1, 1), x, kernel)[1](x)
  x, kernel = draw((2, 8, 8, 16), 'float32', 0), draw((3, 3, 16, 16),
                                                      'float32', 1)
  lowered = jax.jit(grads).trace(x, kernel).lower(
      lowering_platforms=('cuda',)).as_text()
  assert lowered.count('stablehlo.convolution') in (2, 3)
  assert 'dot_general' not in lowered


@pytest.mark.parametrize('channels, stride', [(16, 1), (17, 1), (64, 1),
                                              (16, 2)])
def test_a_float32_kernels_gradient_of_bfloat16_maps_is_not_rounded(
    channels, stride):
  """To bfloat16 it would be off by 2e-3. The maps' gradient is bfloat16."""
  with jax.enable_x64(True):
    x = draw((4, 8, 8, channels), 'bfloat16', 0)
    kernel = draw((3, 3, channels, channels), 'bfloat16', 1).astype('float32')
    y, back = jax.vjp(lambda x, w: conv(x, w, stride, 1), x, kernel)
    d_y = draw(y.shape, 'bfloat16', 2)
    d_x, d_kernel = back(d_y)
    assert (y.dtype, d_x.dtype, d_kernel.dtype) == (
        jnp.bfloat16, jnp.bfloat16, jnp.float32)
    want = jax.vjp(lambda w: reference(x.astype('float64'), w, stride, 1),
                   kernel.astype('float64'))[1](d_y.astype('float64'))[0]
    error = np.abs(d_kernel - want).max() / np.abs(want).max()
  assert error < 1e-5


def test_what_an_accelerator_is_asked_for_with_bfloat16_maps():
  """A TPU sums in float32; a GPU gets convolutions of bfloat16 alone."""
  def grads(x, kernel, d_y):
    return jax.vjp(lambda x, w: conv(x, w, 1, 1), x, kernel)[1](d_y)
  x = draw((2, 8, 8, 16), 'bfloat16', 0)
  traced = jax.jit(grads).trace(x, draw((3, 3, 16, 16), 'float32', 1), x)
  for platform, written in (('tpu', 'f32'), ('cuda', 'bf16')):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    results = [line.split(' -> ')[1] for line in text.splitlines()
               if 'stablehlo.convolution' in line]
    assert f'tensor<3x3x16x16x{written}>' in results
    assert 'tensor<2x8x8x16xbf16>' in results and len(results) in (2, 3)
    assert '2x8x8x16xf32' not in text


@pytest.mark.parametrize('size', [4, 7, 8])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('k, padding', [(1, 0), (3, 1), (5, 1)])
def test_a_kernels_gradient_as_one_convolution(k, padding, stride, size):
  """It is autodiff's, and its products are summed in the dtype that is asked.
  """
  x = draw((2, size, size + 1, 3), 'float32', 0)
  kernel = draw((k, k, 3, 5), 'float32', 1)
  y, back = jax.vjp(lambda w: reference(x, w, stride, padding), kernel)
  d_y = draw(y.shape, 'float32', 2)
  got = xla_kernel_gradient(x, kernel.shape, d_y, stride=stride,
                            padding=padding, exact=False, dtype='float32')
  np.testing.assert_allclose(got, back(d_y)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('k, stride', [(1, 1), (1, 2), (1, 3), (3, 2)])
def test_a_gpus_gradients_are_autodiffs(k, stride, size, monkeypatch):
  """With a 1x1 kernel no convolution spreads its input by zeros there."""
  x = draw((2, size, size + 1, 3), 'float32', 0)
  kernel = draw((k, k, 3, 5), 'float32', 1)
  monkeypatch.setattr(lax, 'platform_dependent',
                      lambda *args, default, **_: default(*args))
  y, back = jax.vjp(lambda x, w: conv(x, w, stride, k // 2), x, kernel)
  want, back_want = jax.vjp(
      lambda x, w: reference(x, w, stride, k // 2), x, kernel)
  for a, b in zip((y, *back(y)), (want, *back_want(want)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  text = jax.jit(back).lower(y).as_text()
  assert bool(re.search(r'lhs_dilate = \[[2-9]', text)) == (k == 3)


@pytest.mark.parametrize('k', [1, 3])
def test_a_rounded_kernel_is_used_and_the_other_gets_the_gradient(k):
  x = draw((2, 8, 8, 4), 'bfloat16', 0)
  kernel = draw((k, k, 4, 4), 'float32', 1)
  d_y = draw((2, 8, 8, 4), 'bfloat16', 2)

  def parts(kernel, **more):
    y, back = jax.vjp(lambda x, w: conv(x, w, 1, k // 2, **more), x, kernel)
    return y, *back(d_y)
  for got, want in zip(
      parts(jnp.zeros_like(kernel), rounded=kernel.astype('bfloat16')),
      parts(kernel), strict=True):
    assert got.dtype == want.dtype and np.abs(np.float32(want)).max() > 1
    np.testing.assert_array_equal(got, want)
