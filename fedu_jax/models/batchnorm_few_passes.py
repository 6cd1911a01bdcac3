"""BatchNorm's two passes for accelerators, which read the maps less often.

There a step takes as long as its maps take to travel from and to the memory,
and each kernel costs some microseconds on top. Compiled for an H100 by XLA, a
step of ResNet-18 (width 64, batch 128, bfloat16) has half as many kernels and
five sixths of the bytes with these passes and with views that go through the
network together; `benchmarks/RECORDS.md` has the counts. Arguments and results
are those of
`batchnorm_plain`.
"""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array
from fedu_jax.models import batchnorm_plain as plain

_SHARE = 512  # rows that are summed in one place; XLA also chooses so for a GPU


def forward(x: Array, scale: Array, bias: Array, *, epsilon: float,
            relu: bool) -> tuple[Array, Array, Array, Array, plain.Line]:
  """Normalises x by its own statistics, as a line in x.

  Both moments of bfloat16 maps are sums of one pass, about 0. Where these
  cancel, because the mean is r standard deviations, the maps' own rounding has
  changed the variance by about r^2 2^-18 / 3 of itself, and float32 adds some
  r^2 2^-24. Maps of float32 are not so coarse, and take two passes.

  Returns:
    The result, x for an argument of the ReLU that is not used, the mean, the
    biased variance, and the line.
  """
  wide = x.astype(scale.dtype)
  if x.dtype == scale.dtype:
    mean, var = plain.moments(wide)
  else:
    mean, square = _sums(wide, jnp.square(wide)) / plain.count(x)
    var = jnp.maximum(square - jnp.square(mean), 0)
  slope = scale[None] * jax.lax.rsqrt(var + epsilon)
  # The barrier makes the compiler compute [V, C] once, in a kernel of their
  # own, and not for each pixel.
  line = jax.lax.optimization_barrier((slope, bias[None] - mean * slope))
  y = _along(line, x)
  return nn.relu(y) if relu else y, x, mean, var, line


def gradients(x: Array, y: Array, mean: Array, inverse: Array, scale: Array,
              line: plain.Line, dy: Array, dmean: Array, dvar: Array,
              *, relu: bool) -> tuple[Array, Array, Array]:
  """As `plain.gradients`; a ReLU's mask is computed from the line."""
  del y  # it would be one more array to read

  def masked(x, dy):
    if relu:
      dy = jnp.where(_along(line, x) > 0, dy, 0)
    return x.astype(scale.dtype), dy.astype(scale.dtype)
  wide, dwide = masked(x, dy)
  # The product is masked by a select of its own. If it shared the other sum's,
  # the compiler would write the masked gradients of small maps to memory.
  product = dy.astype(scale.dtype) * (wide - plain.like(mean, x))
  if relu:
    product = jnp.where(_along(line, x) > 0, product, 0)
  dbias, product = _sums(dwide, product)
  slope, along, shift = plain.coefficients(
      dbias, product, dmean, dvar, inverse, scale, plain.count(x))
  # Behind the barrier the mask is computed again. Without it the compiler
  # would write the masked gradients to memory, and read them again.
  x, dy, slope, along, offset = jax.lax.optimization_barrier(
      (x, dy, slope, along, shift - along * mean))
  wide, dwide = masked(x, dy)
  slope, along, offset = (plain.like(v, x) for v in (slope, along, offset))
  dx = slope * dwide + along * wide + offset
  return dx.astype(x.dtype), _of_all(product * inverse), _of_all(dbias)


def _along(line: plain.Line, x: Array) -> Array:
  """Computes slope * x + offset, rounded to x's dtype."""
  slope, offset = (plain.like(v, x) for v in line)
  return (x.astype(slope.dtype) * slope + offset).astype(x.dtype)


def _sums(*maps: Array) -> Array:
  """Sums each [V, ..., C] in two stages; returns [len(maps), V, C].

  A GPU sums so many rows in two stages anyway. Here the second stage is one
  kernel for all maps.
  """
  batches, *_, channels = maps[0].shape
  share = math.gcd(plain.count(maps[0]), _SHARE)
  parts = jnp.stack([x.reshape(batches, -1, share, channels).sum(2)
                     for x in maps])
  return parts.sum(2)


def _of_all(x: Array) -> Array:
  """Adds the rows of [V, C]. A `sum` would make XLA sum the maps once more."""
  return functools.reduce(jnp.add, list(x))
