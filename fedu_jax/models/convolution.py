"""The convolution: XLA's on accelerators, and a faster one on CPU.

Why it exists, measured on two cores (AMD EPYC, jax 0.10.2, float32, batch 128,
medians of five and more, ms):

- XLA's CPU backend runs the two backward convolutions of autodiff as naive loop
  nests inside `lax.scan` or `lax.map`. With 16 channels at 32x32 the gradients
  of input and kernel take 76 and 910 there, and 3.3 and 9.6 in a call from
  Python. Here they are forward convolutions and matrix products: 3.5 and 4.4.
- XLA computes 3x3 kernels at the rate of a matrix product. With a quarter of
  the multiplications (`winograd.py`) a layer takes, forward / kernel gradient:
  256 channels at 8x8, 16 / 17 instead of 28 / 49; 128 at 16x16, 28 / 20 instead
  of 30 / 68; 64 at 32x32, 42 / 42 instead of 79 / 174.
- With few channels, copies of the maps dominate (`few_channels.py`): a step of
  width 8 on 16 pixels takes 20.6 instead of 24.4 (batch 32, one core).
- XLA's input gradient of a strided convolution multiplies zeros between the
  rows of the output gradient. Without them, 64 to 128 channels at 32x32 take
  26 instead of 62.
- On 2x2 maps with 512 channels XLA takes 745 even from Python. Winograd's
  method takes 4.8 and a product of patches 9.1.

`benchmarks/conv_bench.py` measures each part next to XLA's.

What it costs in accuracy: Winograd's method rounds three to eleven times as
much as plain sums. In a full-size ResNet-18 (width 64, 32x32, batch 16,
float32) the 3x3 layers of stride 1 differ from float64 by this much, relative
to the norm, in the output / input gradient / kernel gradient: 1e-6 to 3e-6 /
2e-6 to 4e-6 / 1e-6 to 3e-6. With `exact=True`, which leaves Winograd's method
out, it is 3e-7 / 4e-7 / 2e-7 to 3e-7, and in PyTorch 2e-7 / 2e-7 / 2e-7 to
1.5e-6. All other layers are the same with and without `exact`.
`benchmarks/precision_bench.py` measures it; `benchmarks/RECORDS.md` has all
numbers.

Delete `by_shape.py` (except `xla`), `few_channels.py` and `winograd.py` when
`lax.conv_general_dilated` with autodiff costs the same inside a scan as outside
and XLA has Winograd's method. Other backends use XLA's convolution and its
autodiff.
"""

from collections.abc import Callable
import functools

import jax
from jax import lax
import jax.numpy as jnp

from fedu_jax.core.state import Array, PyTree
from fedu_jax.models.cpu_conv import by_shape

CONVOLUTIONS = ('fast', 'exact')


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(x: Array, kernel: Array, stride: int, padding: int,
         exact: bool = False) -> Array:
  """Convolves with explicit, symmetric padding (PyTorch's, not 'SAME').

  Args:
    x: the maps, [B, H, W, C].
    kernel: [k, k, C, F].
    stride: the stride along both axes.
    padding: the zeros added on each side of both axes, fewer than k.
    exact: whether to sum products in float32, here and in the gradients: no
      Winograd's method on CPU, no TF32 or bfloat16 products on accelerators.

  Returns:
    [B, H', W', F] with H' = (H + 2 padding - k) // stride + 1.
  """
  pads = ((padding, padding),) * 2
  on_cpu = functools.partial(by_shape.forward, stride=stride, pads=pads,
                             exact=exact)
  return lax.platform_dependent(
      x, kernel, cpu=functools.partial(_at_least_float32, on_cpu),
      default=functools.partial(by_shape.xla, stride=stride, pads=pads,
                                exact=exact))


def _at_least_float32(fn: Callable[..., PyTree], *args: Array) -> PyTree:
  """Computes bfloat16 in float32 and rounds the results, as CPUs do anyway."""
  dtype = args[0].dtype
  if dtype.itemsize >= 4:
    return fn(*args)
  return jax.tree.map(lambda y: y.astype(dtype),
                      fn(*(x.astype(jnp.float32) for x in args)))


def _forward(x, kernel, stride, padding, exact):
  return conv(x, kernel, stride, padding, exact), (x, kernel)


def _backward(stride, padding, exact, saved, d_y):
  def autodiff(x, kernel, d_y):
    pads = ((padding, padding),) * 2
    xla = functools.partial(by_shape.xla, stride=stride, pads=pads, exact=exact)
    return jax.vjp(xla, x, kernel)[1](d_y)

  def by_hand(*args):
    return tuple(
        gradient(*args, stride=stride, padding=padding, exact=exact)
        for gradient in (by_shape.input_gradient, by_shape.kernel_gradient))
  return lax.platform_dependent(
      *saved, d_y, cpu=functools.partial(_at_least_float32, by_hand),
      default=autodiff)


conv.defvjp(_forward, _backward)
