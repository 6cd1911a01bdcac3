"""Convolution, dense layer and MLP, with PyTorch's default initialisation.

The field `dtype` of a module is the dtype of its products. None means the
dtype of its parameters.
"""

import math
from typing import Any

from flax import linen as nn
import jax

from fedu_jax.core.state import Array
from fedu_jax.models import convolution
from fedu_jax.models.batchnorm import BatchNorm

# PyTorch's default for weights: uniform in +-1/sqrt(fan_in).
_kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _bias_init(fan_in: int) -> Any:
  """PyTorch's default for biases: uniform in +-1/sqrt(fan_in)."""
  bound = 1 / math.sqrt(fan_in)
  return lambda rng, shape, dtype=float: jax.random.uniform(
      rng, shape, dtype, -bound, bound)


class Conv(nn.Module):
  """A convolution without bias, padded by half its kernel."""
  features: int
  size: int = 3
  stride: int = 1
  dtype: str | None = None
  convolution: str = 'fast'  # one of `convolution.CONVOLUTIONS`

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', _kernel_init, shape)
    dtype = self.dtype or kernel.dtype
    return convolution.conv(x.astype(dtype), kernel.astype(dtype), self.stride,
                            self.size // 2, self.convolution == 'exact')


class Linear(nn.Module):
  """A dense layer with PyTorch's default initialisation."""
  features: int
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    fan_in = x.shape[-1]
    kernel = self.param('kernel', _kernel_init, (fan_in, self.features))
    bias = self.param('bias', _bias_init(fan_in), (self.features,))
    dtype = self.dtype or kernel.dtype
    y = x.astype(dtype) @ kernel.astype(dtype)
    return y.astype(bias.dtype) + bias.reshape(1, -1)


class MLP(nn.Module):
  """Linear, BatchNorm, ReLU, Linear: the projector and the predictor.

  With `layers` 1 it is one Linear; with 0 it returns its input.
  """
  hidden: int
  features: int
  dtype: str | None = None
  layers: int = 2

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    if self.layers == 2:
      x = Linear(self.hidden, self.dtype, name='linear1')(x)
      x = nn.relu(BatchNorm(name='bn')(x, train=train))
    if self.layers:
      x = Linear(self.features, self.dtype, name='linear2')(x)
    return x
