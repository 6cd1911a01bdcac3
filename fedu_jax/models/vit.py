"""Vision transformers: the ViT-Tiny and ViT-Small of timm.

The architecture is that of timm's `vit_tiny_patch16_224` (Dosovitskiy et al.
2021): patches, a class token, learned position embeddings, blocks with a
LayerNorm before attention and before the MLP, and a last LayerNorm. The
features are the normalised class token. Weights are drawn as timm draws them. A
backbone has no BatchNorm, and so no statistics.

With a narrower `dtype` the factors of products have it. LayerNorm, the softmax
and the sums of blocks are in the parameters' dtype.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array
from fedu_jax.models import layers
from fedu_jax.models.normalisation import normalised

_EXPANSION = 4  # hidden units of a block's MLP, for each of its channels

_drawn = nn.initializers.truncated_normal(0.02, lower=-100, upper=100)
_LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6,
                               use_fast_variance=False)


class PatchEmbedding(nn.Module):
  """Projects patches: [B, H, W, C] -> [B, N, D].

  The kernel is that of a convolution whose stride is its size, [p, p, C, D].
  """
  features: int
  patch: int
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    p, (batch, height, width, channels) = self.patch, x.shape
    kernel = self.param('kernel', layers.pytorch_kernel,
                        (p, p, channels, self.features))
    bias = self.param('bias', layers.pytorch_bias(p * p * channels),
                      (self.features,))
    x = x.reshape(batch, height // p, p, width // p, p, channels)
    y = layers.affine(x.swapaxes(2, 3).reshape(-1, p * p * channels),
                      kernel.reshape(-1, self.features), bias, self.dtype)
    return y.reshape(batch, -1, self.features)


class _Dense(nn.Module):
  """Dense layers of one part of a block, for tokens [B, N, D]."""
  dtype: str | None = None

  def dense(self, x: Array, features: int, name: str) -> Array:
    y = layers.Linear(features, self.dtype, _drawn, nn.initializers.zeros,
                      name=name)(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], features)


class Attention(_Dense):
  """Attention of several heads, with a bias of queries, keys and values."""
  heads: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    dtype = jnp.dtype(self.dtype or x.dtype)
    three = self.dense(x, 3 * x.shape[-1], 'qkv').astype(dtype)
    q, k, v = jnp.moveaxis(
        three.reshape(*x.shape[:-1], 3, self.heads, -1), 2, 0)
    y = jax.nn.dot_product_attention(q, k, v)
    return self.dense(y.reshape(x.shape), x.shape[-1], 'proj')


class TokenMLP(_Dense):
  """A dense layer, GELU, and a dense layer, for each token."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = self.dense(x, _EXPANSION * x.shape[-1], 'fc1')
    return self.dense(nn.gelu(y, approximate=False), x.shape[-1], 'fc2')


class Block(nn.Module):
  """Attention and an MLP, each added to its input."""
  heads: int
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x += Attention(self.dtype, self.heads, name='attn')(
        _LayerNorm(name='norm1')(x))
    return x + TokenMLP(self.dtype, name='mlp')(_LayerNorm(name='norm2')(x))


class ViT(nn.Module):
  """The backbone: [B, H, W, C] -> [B, D], D = width heads.

  Attributes:
    depth: the number of blocks.
    heads: the number of heads of attention.
    width: the channels of a head.
    patch: the pixels of a patch's side; it divides the sides of images.
    dtype: see the module's docstring.
    normalise: one of `normalisation.KINDS`.
  """
  depth: int
  heads: int
  width: int
  patch: int
  dtype: str | None = None
  normalise: str = 'none'

  @nn.compact
  def __call__(self, x: Array, *, train: bool, views: int = 1) -> Array:
    del train, views  # nothing depends on the other images of a batch
    channels = self.heads * self.width
    x = PatchEmbedding(channels, self.patch, self.dtype, name='patch_embed')(
        normalised(x, self.normalise))
    token = self.param('cls_token', nn.initializers.normal(1e-6),
                       (1, 1, channels))
    places = self.param('pos_embed', _drawn, (1, x.shape[1] + 1, channels))
    first = jnp.broadcast_to(token, (len(x), 1, channels))
    x = jnp.concatenate([first, x], 1) + places
    for i in range(self.depth):
      x = Block(self.heads, self.dtype, name=f'blocks_{i}')(x)
    return _LayerNorm(name='norm')(x[:, 0])
