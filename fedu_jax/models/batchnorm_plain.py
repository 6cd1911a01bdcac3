"""BatchNorm's two passes by the plain formulas, which are the CPU's.

All functions take maps as [V, ..., C]: V batches, each with statistics of its
own, which are means over all axes between.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array

Line = tuple[Array, Array]  # a slope and an offset, [V, C] each


def moments(x: Array) -> tuple[Array, Array]:
  """Returns the mean and the biased variance, [V, C], in two passes."""
  mean = _sum(x) / count(x)
  return mean, _sum(jnp.square(x - like(mean, x))) / count(x)


def count(x: Array) -> int:
  """The number of values that a statistic of x is made of."""
  return x.size // x.shape[0] // x.shape[-1]


def like(vectors: Array, x: Array) -> Array:
  """Reshapes vectors [V, C] to the rank of x, so that they broadcast."""
  return vectors.reshape(-1, *(1,) * (x.ndim - 2), x.shape[-1])


def _sum(x: Array) -> Array:
  if x.shape[0] == 1:  # the order of sums, and so the bits, of earlier runs
    return x[0].sum(tuple(range(x.ndim - 2)))[None]
  return x.sum(tuple(range(1, x.ndim - 1)))


def apply(x: Array, mean: Array, var: Array, scale: Array, bias: Array,
          epsilon: float) -> Array:
  """Normalises x by given statistics [V, C], in the dtype of `scale`."""
  factor = scale[None] * jax.lax.rsqrt(var + epsilon)
  y = ((x.astype(scale.dtype) - like(mean, x)) * like(factor, x)
       + like(bias, x))
  return y.astype(x.dtype)


def forward(x: Array, scale: Array, bias: Array, *, epsilon: float,
            relu: bool) -> tuple[Array, Array, Array, Array, Line]:
  """Normalises x by its own statistics.

  Returns:
    The result, the argument of its ReLU, the mean, the biased variance, and a
    line that is not used.
  """
  mean, var = moments(x.astype(scale.dtype))
  y = apply(x, mean, var, scale, bias, epsilon)
  return nn.relu(y) if relu else y, y, mean, var, (mean, mean)


def gradients(x: Array, y: Array, mean: Array, inverse: Array, scale: Array,
              line: Line, dy: Array, dmean: Array, dvar: Array, *,
              relu: bool) -> tuple[Array, Array, Array]:
  """Returns the gradients of x, of scale [C] and of bias [C].

  Args:
    x: the maps.
    y: the argument of the ReLU.
    mean: the mean, [V, C].
    inverse: 1 over the standard deviation, [V, C].
    scale: [C].
    line: not used.
    dy: the gradient of the result.
    dmean: the gradient of the mean, [V, C].
    dvar: the gradient of the variance, [V, C].
    relu: whether there is one.
  """
  del line
  if relu:
    dy = jnp.where(y > 0, dy, 0)
  dy = dy.astype(scale.dtype)
  centred = x.astype(scale.dtype) - like(mean, x)
  dbias, product = _sum(dy), _sum(dy * centred)
  slope, along, shift = coefficients(dbias, product, dmean, dvar, inverse,
                                     scale, count(x))
  dx = like(slope, x) * dy + like(along, x) * centred + like(shift, x)
  return dx.astype(x.dtype), (product * inverse).sum(0), dbias.sum(0)


def coefficients(dbias: Array, product: Array, dmean: Array, dvar: Array,
                 inverse: Array, scale: Array, m: int) -> tuple[Array, ...]:
  """Returns the factors of dy, of x - mean and of 1 in the gradient of x.

  With m rows and normalised x^: dx = scale/sd (dy - mean(dy) - x^ mean(dy x^)),
  plus the gradients of the returned statistics.

  Args:
    dbias: the sum of dy, [V, C].
    product: the sum of dy (x - mean), [V, C].
    dmean: the gradient of the mean, [V, C].
    dvar: the gradient of the variance, [V, C].
    inverse: 1 over the standard deviation, [V, C].
    scale: [C].
    m: the number of rows.
  """
  slope = scale[None] * inverse
  along = 2 * dvar / m - slope * jnp.square(inverse) * product / m
  return slope, along, (dmean - slope * dbias) / m
