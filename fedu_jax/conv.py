"""The convolution: XLA's own, and on CPU one that is fast inside a loop too.

Why it exists, measured on two cores (AMD EPYC, jax 0.10.2, float32, batch 128,
median of 7 in a scan):

- XLA's CPU backend runs the two backward convolutions that autodiff makes as
  naive loop nests when they stand inside `lax.scan` or `lax.map`: 25 times as
  long. Here they are written as forward convolutions and matrix products.
- It computes 3x3 kernels at the rate of a matrix product. With a quarter of the
  multiplications (`winograd.py`) a layer takes, in ms for forward / kernel
  gradient: 256 channels at 8x8, 29 / 29 instead of 65 / 79 (XLA's convolution /
  a product of patches); 128 at 16x16, 43 / 35 instead of 67 / 98; 64 at 32x32,
  72 / 68 instead of 133 / 125. With 16 channels at 32x32 the forward is slower.
- A strided convolution's input gradient as a convolution of the spread-out
  output gradient multiplies zeros: 99 ms instead of 82 (64 to 128 channels).
- On 2x2 maps it takes 1513 ms where a product of patches takes 12 (512
  channels).

Each part is under jit, so that it is traced once for all layers of a shape.

Delete the CPU half when `lax.conv_general_dilated` with autodiff costs the same
inside a scan as outside, and what remains of it when XLA has Winograd's method.
Every other backend takes XLA's convolution and its autodiff.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jax import lax

from fedu_jax import winograd
from fedu_jax.state import Array, PyTree

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_SMALL = 4  # the largest side of an output map that is done as a product
# Where Winograd's method wins: its kernel gradient from 16 channels on, its
# convolution from 16 channels on maps of up to 16, and from 64 on larger ones.
_CHANNELS = 16
_MEDIUM = 16
_MANY = 64
# A kernel's gradient is summed over slices of the batch that fit the cache:
_TILES = 256  # Winograd tiles in a slice
_PATCHES = 2**20  # numbers in a slice of patches

_Pads = tuple[tuple[int, int], ...]  # (before, behind) of height, of width


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: Array, kernel: Array, stride: int, padding: int) -> Array:
  """Convolves with explicit, symmetric padding (PyTorch's, not 'SAME').

  Args:
    x: [B, H, W, C].
    kernel: [k, k, C, F].
    stride: of both axes.
    padding: zeros added on each side of both axes, less than k.

  Returns:
    [B, H', W', F] with H' = (H + 2 padding - k) // stride + 1.
  """
  pads = ((padding, padding),) * 2
  on_cpu = functools.partial(_on_cpu, stride=stride, pads=pads)
  return lax.platform_dependent(
      x, kernel, cpu=functools.partial(_at_least_float32, on_cpu),
      default=functools.partial(_xla, stride=stride, pads=pads))


def _at_least_float32(fn: Callable[..., PyTree], *args: Array) -> PyTree:
  """Computes bfloat16 in float32 and rounds the results, as a CPU does anyway.
  """
  dtype = args[0].dtype
  if dtype.itemsize >= 4:
    return fn(*args)
  return jax.tree.map(lambda y: y.astype(dtype),
                      fn(*(x.astype(jnp.float32) for x in args)))


def _xla(x: Array, kernel: Array, *, stride: int, pads: _Pads) -> Array:
  return lax.conv_general_dilated(x, kernel, (stride, stride), pads,
                                  dimension_numbers=_LAYOUT)


def _forward(x, kernel, stride, padding):
  return conv(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, d_y):
  def autodiff(x, kernel, d_y):
    pads = ((padding, padding),) * 2
    return jax.vjp(functools.partial(_xla, stride=stride, pads=pads),
                   x, kernel)[1](d_y)

  def by_hand(x, kernel, d_y):
    return (_input_gradient(x, kernel, d_y, stride=stride, padding=padding),
            _kernel_gradient(x, kernel, d_y, stride=stride, padding=padding))
  return lax.platform_dependent(
      *saved, d_y, cpu=functools.partial(_at_least_float32, by_hand),
      default=autodiff)


conv.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames=('stride', 'pads'))
def _on_cpu(x: Array, kernel: Array, *, stride: int, pads: _Pads) -> Array:
  """The forward convolution, by what is fastest for its shape."""
  height, width = ((size + sum(pad) - k) // stride + 1
                   for size, pad, k in zip(x.shape[1:3], pads, kernel.shape))
  if _winograd_wins(x, kernel, stride, pads):
    return winograd.convolve(x, kernel)
  if max(height, width) > _SMALL:
    return _xla(x, kernel, stride=stride, pads=pads)
  patches = _patches(x, kernel, stride, pads, height, width)
  y = patches @ kernel.reshape(-1, kernel.shape[-1])
  return y.reshape(-1, height, width, kernel.shape[-1])


def _suits_winograd(x: Array, kernel: Array, stride: int, pads: _Pads) -> bool:
  return (kernel.shape[:2] == (3, 3) and stride == 1
          and pads == ((1, 1), (1, 1)) and min(kernel.shape[2:]) >= _CHANNELS
          and winograd.tile(*x.shape[1:3]) > 0)


def _winograd_wins(x: Array, kernel: Array, stride: int, pads: _Pads) -> bool:
  return (_suits_winograd(x, kernel, stride, pads)
          and (max(x.shape[1:3]) <= _MEDIUM or min(kernel.shape[2:]) >= _MANY))


def _patches(x: Array, kernel: Array, stride: int, pads: _Pads, height: int,
             width: int) -> Array:
  """The pixels under each output pixel: [B height width, k k' C]."""
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  rows = [x[:, i:i + (height - 1) * stride + 1:stride,
            j:j + (width - 1) * stride + 1:stride]
          for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
  return jnp.concatenate(rows, axis=-1).reshape(-1, kernel[..., 0].size)


@functools.partial(jax.jit, static_argnames=('stride', 'padding'))
def _input_gradient(x: Array, kernel: Array, d_y: Array, *, stride: int,
                    padding: int) -> Array:
  """One convolution of `d_y` for each of the stride's phases, interleaved.

  Input pixel stride * q + phase is seen by those taps i of the kernel for which
  phase + padding - i is a multiple of the stride, from output pixel
  q + (phase + padding - i) / stride.
  """
  k = len(kernel)
  back = kernel.swapaxes(2, 3)
  counts = [-(-size // stride) for size in x.shape[1:3]]

  def along(phase, axis):
    """Taps in the order of the output pixels that they read, and the pads."""
    taps = [i for i in range(k) if (phase + padding - i) % stride == 0][::-1]
    if not taps:
      return [], (0, 0)
    first, last = ((phase + padding - i) // stride
                   for i in (taps[0], taps[-1]))
    return taps, (-first, counts[axis] + last - d_y.shape[1 + axis])

  def phase(i, j):
    (rows, row_pad), (columns, column_pad) = along(i, 0), along(j, 1)
    if not rows or not columns:
      return jnp.zeros((len(x), *counts, x.shape[-1]), x.dtype)
    part = back[rows[0]::-stride, columns[0]::-stride]
    return _on_cpu(d_y, part, stride=1, pads=(row_pad, column_pad))

  if stride == 1:
    pads = ((k - 1 - padding,) * 2,) * 2
    if _winograd_wins(d_y, back, 1, pads):
      return winograd.convolve(d_y, jnp.flip(kernel, (0, 1)), transposed=True)
    return phase(0, 0)
  rows = [jnp.stack([phase(i, j) for j in range(stride)], axis=3)
          for i in range(stride)]
  d_x = jnp.stack(rows, axis=2).reshape(
      len(x), *(stride * count for count in counts), -1)
  return d_x[:, :x.shape[1], :x.shape[2]]


@functools.partial(jax.jit, static_argnames=('stride', 'padding'))
def _kernel_gradient(x: Array, kernel: Array, d_y: Array, *, stride: int,
                     padding: int) -> Array:
  """Products of tiles or patches with `d_y`, summed over slices of the batch.
  """
  pads = ((padding, padding),) * 2
  height, width = d_y.shape[1:3]
  if _suits_winograd(x, kernel, stride, pads):
    tiles = height * width // winograd.tile(height, width)**2
    return _over_slices(winograd.kernel_gradient, x, d_y, _TILES // tiles)

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

  def sliced(a):  # images of zeros fill the last slice and add nothing
    pad = [(0, steps * size - len(a))] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, pad).reshape(steps, size, *a.shape[1:])

  def add(total, part):
    return total + gradient(*part), None
  shape = jax.eval_shape(gradient, x[:size], d_y[:size])
  return lax.scan(add, jnp.zeros(shape.shape, shape.dtype),
                  (sliced(x), sliced(d_y)))[0]
