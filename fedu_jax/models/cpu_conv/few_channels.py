"""3x3 convolutions of few channels on CPU, as one matrix product each.

One operand holds the three taps along the width, the other the three taps along
the height: a product of [.., 3 C] and [3 C, 3 F]. Patches would be [.., 9 C],
nine copies of the maps instead of three.
"""

import jax.numpy as jnp

from fedu_jax.core.state import Array


def convolve(x: Array, kernel: Array) -> Array:
  """Convolves with padding 1: [B, H, W, C], [3, 3, C, F] -> [B, H, W, F]."""
  height = x.shape[1]
  channels, features = kernel.shape[2:]
  beside = kernel.transpose(1, 2, 0, 3).reshape(3 * channels, 3 * features)
  y = _widths(x) @ beside  # [B, H + 2, W, 3 F]
  above, at, below = (
      y[:, i:i + height, :, i * features:(i + 1) * features] for i in range(3))
  return above + at + below


def kernel_gradient(x: Array, d_y: Array) -> Array:
  """The gradient of the kernel: [B, H, W, C], [B, H, W, F] -> [3, 3, C, F]."""
  height, channels, features = x.shape[1], x.shape[-1], d_y.shape[-1]
  padded = jnp.pad(d_y, ((0, 0), (2, 2), (0, 0), (0, 0)))
  heights = jnp.concatenate(
      [padded[:, 2 - i:4 - i + height] for i in range(3)], -1)
  product = (_widths(x).reshape(-1, 3 * channels).T
             @ heights.reshape(-1, 3 * features))
  return product.reshape(3, channels, 3, features).transpose(2, 0, 1, 3)


def _widths(x: Array) -> Array:
  """Each pixel with its left and right neighbours: [B, H + 2, W, 3 C]."""
  width = x.shape[2]
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return jnp.concatenate([x[:, :, j:j + width] for j in range(3)], -1)
