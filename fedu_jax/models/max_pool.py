"""The max-pool of the ImageNet stem, with a gradient written by hand.

The gradient of XLA's own operation scatters. On a CPU that took four times as
long as slices in a first trial, and on a GPU sums that are scattered may be
added in any order. Slices give the same bits each time, on all backends.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from fedu_jax.core.state import Array

_SIZE, _STRIDE, _PADDING = 3, 2, 1
_TAPS = [(i, j) for i in range(_SIZE) for j in range(_SIZE)]


def max_pool(x: Array) -> Array:
  """Takes the largest of 3x3 pixels, with stride 2 and padding 1.

  Args:
    x: [B, H, W, C].

  Returns:
    [B, H', W', C] with H' = (H + 1) // 2, in the dtype of x. The first of equal
    pixels gets the gradient, and NaN is larger than any number, as in PyTorch.
  """
  return _pool(x, x.shape[1:3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(x: Array, sides: tuple[int, int]) -> Array:
  return _forward(x, sides)[0]


def _forward(x, sides):
  pads = ((_PADDING, _PADDING),) * 2
  padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
  height, width = ((size + 2 * _PADDING - _SIZE) // _STRIDE + 1
                   for size in sides)
  largest = jnp.full((len(x), height, width, x.shape[-1]), -jnp.inf, x.dtype)
  which = jnp.zeros(largest.shape, jnp.int8)
  for k, (i, j) in enumerate(_TAPS):
    tap = padded[:, i:i + _STRIDE * (height - 1) + 1:_STRIDE,
                 j:j + _STRIDE * (width - 1) + 1:_STRIDE]
    better = (tap > largest) | jnp.isnan(tap)
    largest = jnp.where(better, tap, largest)
    which = jnp.where(better, jnp.int8(k), which)
  return largest, which


def _backward(sides, which, d_y):
  def lines(start, count, size):
    """The pads that put `count` lines on every second of `size` lines."""
    before = start - _PADDING
    return before, size - before - _STRIDE * (count - 1) - 1, _STRIDE - 1
  d_x = None
  for k, (i, j) in enumerate(_TAPS):
    part = lax.pad(
        jnp.where(which == k, d_y, 0), jnp.zeros((), d_y.dtype),
        ((0, 0, 0), lines(i, d_y.shape[1], sides[0]),
         lines(j, d_y.shape[2], sides[1]), (0, 0, 0)))
    d_x = part if d_x is None else d_x + part
  return d_x,


_pool.defvjp(_forward, _backward)
