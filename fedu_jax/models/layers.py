"""Convolution, dense layer and MLP, with PyTorch's default initialisation.

The field `dtype` of a module is the dtype of its products' factors. None means
the dtype of its parameters. A narrower one rounds the factors, and not the sums
of a dense layer or the gradients of its parameters. A convolution's output is a
map between layers, so it has that dtype; `convolution.conv` says what its
gradients have. A kernel that is rounded already can be given in the collection
'rounded', see `round_kernels`.
"""

from collections.abc import Callable
import math

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array, PyTree
from fedu_jax.models import convolution
from fedu_jax.models.batchnorm import BatchNorm

# PyTorch's default for weights: uniform in +-1/sqrt(fan_in).
pytorch_kernel = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def pytorch_bias(fan_in: int) -> Callable[..., Array]:
  """PyTorch's default for biases: uniform in +-1/sqrt(fan_in)."""
  bound = 1 / math.sqrt(fan_in)
  return lambda rng, shape, dtype=float: jax.random.uniform(
      rng, shape, dtype, -bound, bound)


def round_kernels(params: PyTree, dtype: str | None) -> PyTree:
  """Rounds a network's kernels, for the steps that use them as they are.

  Args:
    params: the network's parameters.
    dtype: of the result; None returns ().
  """
  if not dtype:
    return ()
  return traverse_util.unflatten_dict({
      path: x.astype(dtype)
      for path, x in traverse_util.flatten_dict(params).items()
      if path[-1] == 'kernel'})


class Conv(nn.Module):
  """A convolution without bias, padded by half its kernel."""
  features: int
  size: int = 3
  stride: int = 1
  dtype: str | None = None
  # One of `convolution.CONVOLUTIONS`, or `convolution.PLAIN`.
  convolution: str = 'fast'

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', pytorch_kernel, shape)
    dtype = self.dtype or kernel.dtype
    if self.convolution == convolution.PLAIN:
      return convolution.plain(x.astype(dtype), kernel, self.stride,
                               self.size // 2)
    return convolution.conv(x.astype(dtype), kernel, self.stride,
                            self.size // 2, self.convolution == 'exact',
                            self.get_variable('rounded', 'kernel'))


@jax.custom_vjp
def narrow_product(x: Array, kernel: Array, rounded: Array) -> Array:
  """A product whose factors are rounded to a narrow dtype, and its sums not.

  Its gradients are such products too: by autodiff they would be products of
  factors of two dtypes, and rounded at the end.

  Args:
    x: [B, D].
    kernel: [D, F]; it gets the gradient.
    rounded: the kernel in the narrow dtype, [D, F].

  Returns:
    [B, F], in the kernel's dtype; the gradients have the arguments' dtypes.
  """
  return jnp.matmul(x.astype(rounded.dtype), rounded,
                    preferred_element_type=kernel.dtype)


def _product_forward(x, kernel, rounded):
  return narrow_product(x, kernel, rounded), (x, kernel, rounded)


def _product_backward(saved, d_y):
  x, kernel, rounded = saved
  d_y = d_y.astype(rounded.dtype)
  return (jnp.matmul(d_y, rounded.T,
                     preferred_element_type=kernel.dtype).astype(x.dtype),
          jnp.matmul(x.astype(rounded.dtype).T, d_y,
                     preferred_element_type=kernel.dtype), None)


narrow_product.defvjp(_product_forward, _product_backward)


class Linear(nn.Module):
  """A dense layer, by default with PyTorch's initialisation."""
  features: int
  dtype: str | None = None
  kernel_init: Callable[..., Array] = pytorch_kernel
  bias_init: Callable[..., Array] | None = None  # None: PyTorch's

  @nn.compact
  def __call__(self, x: Array) -> Array:
    fan_in = x.shape[-1]
    kernel = self.param('kernel', self.kernel_init, (fan_in, self.features))
    bias = self.param('bias', self.bias_init or pytorch_bias(fan_in),
                      (self.features,))
    return affine(x, kernel, bias, self.dtype,
                  self.get_variable('rounded', 'kernel'))


def affine(x: Array, kernel: Array, bias: Array, dtype: str | None,
           rounded: Array | None = None) -> Array:
  """Computes x @ kernel + bias.

  Args:
    x: [B, D].
    kernel: [D, F].
    bias: [F].
    dtype: of the factors; None is the kernel's.
    rounded: the kernel in a narrower `dtype`; None rounds it here.

  Returns:
    [B, F], in the dtype of the bias.
  """
  factors = jnp.dtype(dtype or kernel.dtype)
  if factors.itemsize < kernel.dtype.itemsize:
    y = narrow_product(
        x, kernel, kernel.astype(factors) if rounded is None else rounded)
  else:
    y = x.astype(factors) @ kernel.astype(factors)
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
  def __call__(self, x: Array, *, train: bool, views: int = 1) -> Array:
    if self.layers == 2:
      x = Linear(self.hidden, self.dtype, name='linear1')(x)
      x = BatchNorm(name='bn', relu=True)(x, train=train, views=views)
    if self.layers:
      x = Linear(self.features, self.dtype, name='linear2')(x)
    return x
