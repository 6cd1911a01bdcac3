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
from jax.typing import DTypeLike

from fedu_jax.core.state import Array, PyTree
from fedu_jax.models.cpu_conv import by_shape

CONVOLUTIONS = ('fast', 'exact')
# XLA's convolution on each platform, a CPU too: for programs that leave.
PLAIN = 'plain'


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(x: Array, kernel: Array, stride: int, padding: int,
         exact: bool = False, rounded: Array | None = None) -> Array:
  """Convolves with explicit, symmetric padding (PyTorch's, not 'SAME').

  Args:
    x: the maps, [B, H, W, C].
    kernel: [k, k, C, F]; it is rounded to the dtype of `x`.
    stride: the stride along both axes.
    padding: the zeros added on each side of both axes, fewer than k.
    exact: whether to sum products in float32, here and in the gradients: no
      Winograd's method on CPU, no TF32 or bfloat16 products on accelerators.
    rounded: the kernel in the dtype of `x`; None rounds it here. The gradient
      goes to `kernel`.

  Returns:
    [B, H', W', F] with H' = (H + 2 padding - k) // stride + 1, in the dtype of
    `x`. The gradient of a float32 kernel for bfloat16 maps is summed in
    float32. It is rounded to bfloat16 on a GPU alone: cuDNN writes it so, and
    for another dtype XLA converts all maps to float32 first.
  """
  pads = ((padding, padding),) * 2
  on_cpu = functools.partial(by_shape.forward, stride=stride, pads=pads,
                             exact=exact)
  return lax.platform_dependent(
      x, kernel.astype(x.dtype) if rounded is None else rounded,
      cpu=functools.partial(_at_least_float32, on_cpu),
      default=functools.partial(by_shape.xla, stride=stride, pads=pads,
                                exact=exact))


def plain(x: Array, kernel: Array, stride: int, padding: int) -> Array:
  """Convolves as `conv`, by XLA on each platform."""
  return by_shape.xla(x, kernel.astype(x.dtype), stride=stride,
                      pads=((padding, padding),) * 2)


def _at_least_float32(fn: Callable[..., PyTree], *args: Array) -> PyTree:
  """Computes bfloat16 in float32 and rounds the results, as CPUs do anyway."""
  return jax.tree.map(lambda y: y.astype(args[0].dtype), fn(*map(_wide, args)))


def _wide(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _forward(x, kernel, stride, padding, exact, rounded):
  return conv(x, kernel, stride, padding, exact, rounded), (x, kernel, rounded)


def _backward(stride, padding, exact, saved, d_y):
  x, kernel, narrow = saved
  narrow = kernel.astype(x.dtype) if narrow is None else narrow
  pads = ((padding, padding),) * 2
  xla = functools.partial(by_shape.xla, stride=stride, pads=pads, exact=exact)

  def rounded(x, narrow, d_y):
    d_x, d_kernel = jax.vjp(xla, x, narrow)[1](d_y)
    return d_x, d_kernel.astype(kernel.dtype)

  def on_gpu(x, narrow, d_y):
    d_x, d_kernel = rounded(x, narrow, d_y)
    if narrow.shape[:2] == (1, 1) and stride > 1 and not padding:
      # The pixels that a stride leaves out have no gradient. cuDNN would write
      # zeros for them; these are made where the gradient is read.
      d_x, = jax.vjp(lambda x: by_shape.xla(
          x[:, ::stride, ::stride], narrow, stride=1, pads=pads, exact=exact),
                     x)[1](d_y)
    return d_x, d_kernel

  def unrounded(x, narrow, d_y):
    d_x, = jax.vjp(lambda x: xla(x, narrow), x)[1](d_y)
    return d_x, xla_kernel_gradient(
        x, narrow.shape, d_y, stride=stride, padding=padding,
        exact=exact, dtype=kernel.dtype)

  def by_hand(x, narrow, d_y):
    args = _wide(x), _wide(narrow), _wide(d_y)
    d_x, d_kernel = (
        gradient(*args, stride=stride, padding=padding, exact=exact)
        for gradient in (by_shape.input_gradient, by_shape.kernel_gradient))
    return d_x.astype(x.dtype), d_kernel.astype(kernel.dtype)
  d_x, d_kernel = lax.platform_dependent(
      x, narrow, d_y, cpu=by_hand, default=on_gpu,
      tpu=rounded if x.dtype == kernel.dtype else unrounded)
  return d_x, d_kernel, None


def xla_kernel_gradient(x: Array, shape: tuple[int, ...], d_y: Array, *,
                        stride: int, padding: int, exact: bool,
                        dtype: DTypeLike) -> Array:
  """The gradient with respect to the kernel, as autodiff has it, in any dtype.

  It is a convolution of the maps with the output's gradient, where channels
  take the place of the batch, and the batch that of channels.

  Args:
    x: the maps, [B, H, W, C].
    shape: the kernel's, (k, k, C, F).
    d_y: the gradient of the output, [B, H', W', F].
    stride: of the convolution.
    padding: of the convolution.
    exact: whether to ask for the highest precision.
    dtype: of the result; products are summed in it.

  Returns:
    [k, k, C, F].
  """
  behind = [k + stride * (count - 1) - size - padding for k, count, size in zip(
      shape, d_y.shape[1:3], x.shape[1:3])]
  return lax.conv_general_dilated(
      x, d_y, (1, 1), [(padding, more) for more in behind],
      rhs_dilation=(stride, stride),
      dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
      precision=lax.Precision.HIGHEST if exact else None,
      preferred_element_type=dtype)


conv.defvjp(_forward, _backward)
