"""BatchNorm with PyTorch's conventions and a backward pass written by hand.

The backward pass reads the maps for two sums and writes them once; JAX's own
derivative passes over them several times more. A step of ResNet-18 at width 16
on two CPU cores is 1.06 (1.03 to 1.09) times as fast: nearly as fast as without
BatchNorm. Not measured elsewhere.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(x: Array, scale: Array, bias: Array, epsilon: float
              ) -> tuple[Array, Array, Array]:
  """Normalises by the statistics of the batch, in the dtype of `scale`.

  Args:
    x: the maps, [..., C].
    scale: the factors after normalisation, [C].
    bias: the summands after normalisation, [C].
    epsilon: a number added to the variance.

  Returns:
    The result [..., C] in x's dtype, and the batch's mean and biased variance,
    [C] each.
  """
  return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
  wide = x.astype(scale.dtype)
  mean = _sum(wide) / _count(x)
  var = _sum(jnp.square(wide - _row(mean, x))) / _count(x)
  y = apply(x, mean, var, scale, bias, epsilon)
  return (y, mean, var), (x, mean, jax.lax.rsqrt(var + epsilon), scale)


def _backward(epsilon, saved, cotangents):
  del epsilon
  x, mean, inverse, scale = saved
  dy, dmean, dvar = cotangents
  dy = dy.astype(scale.dtype)
  centred = x.astype(scale.dtype) - _row(mean, x)
  dbias, product = _sum(dy), _sum(dy * centred)
  # With m examples and normalised x^: dx = scale/sd (dy - mean(dy)
  # - x^ mean(dy x^)), plus the gradients of the returned statistics.
  factor, m = scale * inverse, _count(x)
  along = 2 * dvar / m - factor * jnp.square(inverse) * product / m
  dx = (_row(factor, x) * dy + _row(along, x) * centred
        + _row((dmean - factor * dbias) / m, x))
  return dx.astype(x.dtype), product * inverse, dbias


normalise.defvjp(_forward, _backward)


def apply(x: Array, mean: Array, var: Array, scale: Array, bias: Array,
          epsilon: float) -> Array:
  """Normalises [..., C] by given statistics [C], in the dtype of `scale`."""
  factor = scale * jax.lax.rsqrt(var + epsilon)
  y = (x.astype(scale.dtype) - _row(mean, x)) * _row(factor, x) + _row(bias, x)
  return y.astype(x.dtype)


def _count(x: Array) -> int:
  return x.size // x.shape[-1]


def _sum(x: Array) -> Array:
  return x.sum(tuple(range(x.ndim - 1)))


def _row(vector: Array, x: Array) -> Array:
  """Reshapes a vector [C] to the rank of x, so that it broadcasts."""
  return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


class BatchNorm(nn.Module):
  """BatchNorm with PyTorch's conventions.

  In training it normalises by the biased variance of the batch and tracks the
  unbiased variance with momentum 0.1. In evaluation it normalises by the
  tracked statistics. It computes in the parameters' dtype and returns the
  input's dtype.
  """
  momentum: float = 0.1
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if not train:
      return apply(x, mean.value, var.value, scale, bias, self.epsilon)
    y, batch_mean, batch_var = normalise(x, scale, bias, self.epsilon)
    if not self.is_initializing():
      unbiased = batch_var * (_count(x) / max(_count(x) - 1, 1))
      mean.value += self.momentum * (batch_mean - mean.value)
      var.value += self.momentum * (unbiased - var.value)
    return y
