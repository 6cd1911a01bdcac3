"""ResNet backbones: the stem, the blocks and the stages.

With the CIFAR stem the architecture is that of the released code (EasyFL,
`resnet.py`): a 3x3 convolution of stride 1, and no max-pool. With the ImageNet
stem it is torchvision's: a 7x7 convolution and a 3x3 max-pool, of stride 2
each. Both have explicit padding by half a kernel, no bias in convolutions, the
strides of stages on 3x3 kernels, PyTorch's BatchNorm and PyTorch's default
initialisation.
"""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax.numpy as jnp

from fedu_jax.core.state import Array
from fedu_jax.models import batchnorm
from fedu_jax.models.batchnorm import BatchNorm
from fedu_jax.models.layers import Conv
from fedu_jax.models.max_pool import max_pool
from fedu_jax.models.normalisation import normalised

STEMS = ('cifar', 'imagenet')
LEAST = {'cifar': 1, 'imagenet': 32}  # pixels of a side


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut.

  The shortcut's name has no `conv` in it, so the divergence leaves it out.
  """
  width: int
  stride: int
  dtype: str | None = None
  convolution: str = 'fast'
  expansion = 1

  @nn.compact
  def __call__(self, x: Array, *, train: bool, views: int = 1) -> Array:
    conv = functools.partial(Conv, self.width, dtype=self.dtype,
                             convolution=self.convolution)
    y = conv(3, self.stride, name='conv1')(x)
    y = BatchNorm(name='bn1', relu=True)(y, train=train, views=views)
    y = conv(3, name='conv2')(y)
    y = BatchNorm(name='bn2')(y, train=train, views=views)
    return batchnorm.relu(y + _shortcut(self, x, train, views))


class Bottleneck(nn.Module):
  """Convolutions of 1x1, 3x3 (with the stride) and 1x1 (4 times as wide)."""
  width: int
  stride: int
  dtype: str | None = None
  convolution: str = 'fast'
  expansion = 4

  @nn.compact
  def __call__(self, x: Array, *, train: bool, views: int = 1) -> Array:
    conv = functools.partial(Conv, dtype=self.dtype,
                             convolution=self.convolution)
    y = conv(self.width, 1, name='conv1')(x)
    y = BatchNorm(name='bn1', relu=True)(y, train=train, views=views)
    y = conv(self.width, 3, self.stride, name='conv2')(y)
    y = BatchNorm(name='bn2', relu=True)(y, train=train, views=views)
    y = conv(self.expansion * self.width, 1, name='conv3')(y)
    y = BatchNorm(name='bn3')(y, train=train, views=views)
    return batchnorm.relu(y + _shortcut(self, x, train, views))


def _shortcut(block, x, train, views):
  """Projects x if the block changes its shape; for use in a compact method."""
  features = block.expansion * block.width
  if block.stride == 1 and x.shape[-1] == features:
    return x
  x = Conv(features, 1, block.stride, block.dtype, block.convolution,
           name='shortcut')(x)
  return BatchNorm(name='shortcut_bn')(x, train=train, views=views)


class ResNet(nn.Module):
  """The backbone: [B, H, W, C] -> [B, D], D = 8 width expansion."""
  block: type[nn.Module]
  stages: Sequence[int]
  width: int
  dtype: str | None = None
  convolution: str = 'fast'
  stem: str = 'cifar'  # one of STEMS
  normalise: str = 'none'  # one of `normalisation.KINDS`

  @nn.compact
  def __call__(self, x: Array, *, train: bool, views: int = 1) -> Array:
    large = self.stem == 'imagenet'
    x = Conv(self.width, 7 if large else 3, 2 if large else 1, self.dtype,
             self.convolution, name='conv1')(normalised(x, self.normalise))
    x = BatchNorm(name='bn1', relu=True)(x, train=train, views=views)
    if large:
      x = max_pool(x)
    for i, depth in enumerate(self.stages):
      for j in range(depth):
        stride = 2 if i > 0 and j == 0 else 1
        x = self.block(self.width * 2**i, stride, self.dtype,
                       self.convolution, name=f'layer{i + 1}_{j}')(
                           x, train=train, views=views)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean((1, 2))
