"""Losses between a prediction and its regression target: [B, D] x2 -> [B]."""

import jax.numpy as jnp

from fedu_jax.state import Array


def regression_loss(prediction: Array, target: Array) -> Array:
  """BYOL's loss: the squared distance of the two vectors on the unit sphere.

  Equal to 2 - 2 cos(prediction, target). The norm is bounded below by 1e-12,
  as PyTorch's `normalize` does.

  Args:
    prediction: [B, D].
    target: [B, D].

  Returns:
    [B], each in 0..4.
  """
  def unit(x):
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, 1e-24))
  return 2 - 2 * jnp.sum(unit(prediction) * unit(target), axis=-1)
