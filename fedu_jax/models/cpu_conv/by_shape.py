"""A convolution and its gradients on CPU, by the fastest method for a shape.

Small maps use products of patches, few channels products of rows, many channels
Winograd's method, and all others XLA's convolution. `convolution.py` has the
measurements. Each function is under jit, so that all layers of one shape share
one trace.
"""

from collections.abc import Callable
import functools

import jax
from jax import lax
import jax.numpy as jnp

from fedu_jax.core.state import Array
from fedu_jax.models.cpu_conv import few_channels
from fedu_jax.models.cpu_conv import winograd

_SMALL = 4  # the largest side of an output map for products of patches
# Winograd's method is fastest for kernel gradients with more than _FEW
# channels. It is fastest for convolutions from _MANY channels on, and from _FEW
# on if the maps have at most _MEDIUM pixels a side. With fewer channels,
# products of rows are. The smaller of input's and output's channels counts.
_FEW = 16
_MEDIUM = 16
_MANY = 64
_NARROW = 32  # the most channels of the larger side for rows, forward
# A kernel's gradient is summed over slices of the batch that fit the CPU cache:
_TILES = 256  # Winograd tiles in a slice
_PATCHES = 2**19  # numbers in a slice of patches or rows

Pads = tuple[tuple[int, int], ...]  # (before, behind) of height, of width


def xla(x: Array, kernel: Array, *, stride: int, pads: Pads,
        exact: bool = False) -> Array:
  """Convolves by XLA: [B, H, W, C], [k, k, C, F] -> [B, H', W', F]."""
  return lax.conv_general_dilated(
      x, kernel, (stride, stride), pads,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=lax.Precision.HIGHEST if exact else None)


@functools.partial(jax.jit, static_argnames=('stride', 'pads', 'exact'))
def forward(x: Array, kernel: Array, *, stride: int, pads: Pads,
            exact: bool = False) -> Array:
  """Convolves by the fastest method for the shapes.

  Arguments and result are as in `xla`. `exact` leaves Winograd's method out.
  """
  method = _method(x, kernel, stride, pads, exact)
  if method == 'winograd':
    return winograd.convolve(x, kernel)
  if method == 'rows':
    return few_channels.convolve(x, kernel)
  if method == 'xla':
    return xla(x, kernel, stride=stride, pads=pads)
  size = _output_size(x, kernel, stride, pads)
  y = _patches(x, kernel, stride, pads, *size) @ kernel.reshape(
      -1, kernel.shape[-1])
  return y.reshape(len(x), *size, -1)


def _method(x: Array, kernel: Array, stride: int, pads: Pads,
            exact: bool) -> str:
  few, many = sorted(kernel.shape[2:])
  side = max(_output_size(x, kernel, stride, pads))
  if _keeps_size(kernel, stride, pads):
    if not exact and winograd.tile(*x.shape[1:3]) and (
        few >= _MANY or few >= _FEW and side <= _MEDIUM):
      return 'winograd'
    if few < _FEW and many <= _NARROW and side > _SMALL:
      return 'rows'
  return 'xla' if side > _SMALL else 'patches'


def _keeps_size(kernel: Array, stride: int, pads: Pads) -> bool:
  """Whether the map keeps its size, as Winograd's method and rows require."""
  return (kernel.shape[:2] == (3, 3) and stride == 1
          and pads == ((1, 1), (1, 1)))


def _output_size(x: Array, kernel: Array, stride: int,
                 pads: Pads) -> tuple[int, ...]:
  return tuple((size + sum(pad) - k) // stride + 1
               for size, pad, k in zip(x.shape[1:3], pads, kernel.shape))


def _patches(x: Array, kernel: Array, stride: int, pads: Pads, height: int,
             width: int) -> Array:
  """The input pixels of each output pixel: [B height width, k k' C]."""
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  taps = [x[:, i:i + (height - 1) * stride + 1:stride,
            j:j + (width - 1) * stride + 1:stride]
          for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
  return jnp.concatenate(taps, axis=-1).reshape(-1, kernel[..., 0].size)


@functools.partial(jax.jit, static_argnames=('stride', 'padding', 'exact'))
def input_gradient(x: Array, kernel: Array, d_y: Array, *, stride: int,
                   padding: int, exact: bool = False) -> Array:
  """The gradient [B, H, W, C] of a convolution with respect to its input.

  It is one convolution of `d_y` for each phase of the stride, interleaved. Tap
  i of the kernel reads input pixel stride * q + phase if phase + padding - i is
  a multiple of the stride, for output pixel q + (phase + padding - i) / stride.

  Args:
    x: the input, [B, H, W, C]; only its shape is used.
    kernel: [k, k, C, F].
    d_y: the gradient of the output, [B, H', W', F].
    stride: of the convolution.
    padding: of the convolution.
    exact: whether to leave Winograd's method out.
  """
  k = len(kernel)
  back = kernel.swapaxes(2, 3)
  counts = [-(-size // stride) for size in x.shape[1:3]]

  def along(phase, axis):
    """The taps of a phase, in the order of their output pixels; and pads."""
    taps = [i for i in range(k) if (phase + padding - i) % stride == 0][::-1]
    if not taps:
      return [], (0, 0)
    first, last = ((phase + padding - i) // stride
                   for i in (taps[0], taps[-1]))
    return taps, (-first, counts[axis] + last - d_y.shape[1 + axis])

  def phase(i, j):
    (down, row_pad), (across, column_pad) = along(i, 0), along(j, 1)
    if not down or not across:
      return jnp.zeros((len(x), *counts, x.shape[-1]), x.dtype)
    part = back[down[0]::-stride, across[0]::-stride]
    return forward(d_y, part, stride=1, pads=(row_pad, column_pad), exact=exact)

  if stride == 1:
    pads = ((k - 1 - padding,) * 2,) * 2
    if _method(d_y, back, 1, pads, exact) == 'winograd':
      return winograd.convolve(d_y, jnp.flip(kernel, (0, 1)), transposed=True)
    return phase(0, 0)
  lines = [jnp.stack([phase(i, j) for j in range(stride)], axis=3)
           for i in range(stride)]
  d_x = jnp.stack(lines, axis=2).reshape(
      len(x), *(stride * count for count in counts), -1)
  return d_x[:, :x.shape[1], :x.shape[2]]


@functools.partial(jax.jit, static_argnames=('stride', 'padding', 'exact'))
def kernel_gradient(x: Array, kernel: Array, d_y: Array, *, stride: int,
                    padding: int, exact: bool = False) -> Array:
  """The gradient [k, k, C, F] of a convolution with respect to its kernel.

  It is a product of tiles, rows or patches with `d_y`, summed over slices of
  the batch. Arguments as in `input_gradient`.
  """
  pads = ((padding, padding),) * 2
  height, width = d_y.shape[1:3]
  few = min(kernel.shape[2:])
  if _keeps_size(kernel, stride, pads):
    tile = winograd.tile(height, width)
    if few > _FEW and tile and not exact:
      return _over_slices(winograd.kernel_gradient, x, d_y,
                          _TILES * tile**2 // (height * width))
    if few <= _FEW and max(height, width) > _SMALL:
      numbers = 3 * sum(kernel.shape[2:]) * (height + 2) * width
      return _over_slices(few_channels.kernel_gradient, x, d_y,
                          _PATCHES // numbers)

  def by_patches(x, d_y):
    patches = _patches(x, kernel, stride, pads, height, width)
    return (patches.T @ d_y.reshape(-1, d_y.shape[-1])).reshape(kernel.shape)
  return _over_slices(by_patches, x, d_y,
                      _PATCHES // (height * width * kernel[..., 0].size))


def _over_slices(gradient: Callable[[Array, Array], Array], x: Array,
                 d_y: Array, size: int) -> Array:
  """Sums gradient(x, d_y) over slices of at most `size` images."""
  steps = -(-len(x) // max(size, 1))
  if steps == 1:
    return gradient(x, d_y)
  size = -(-len(x) // steps)

  def sliced(a):  # images of zeros, which add nothing, fill the last slice
    pad = [(0, steps * size - len(a))] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, pad).reshape(steps, size, *a.shape[1:])

  def add(total, part):
    return total + gradient(*part), None
  shape = jax.eval_shape(gradient, x[:size], d_y[:size])
  return lax.scan(add, jnp.zeros(shape.shape, shape.dtype),
                  (sliced(x), sliced(d_y)))[0]
