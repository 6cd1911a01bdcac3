"""Losses on embeddings. Those of `config.loss`: [B, D], [B, D] -> [B]."""

import jax
import jax.numpy as jnp
import optax

from fedu_jax.core import argument_checks
from fedu_jax.core.state import Array


def unit(x: Array) -> Array:
  """Scales rows to length one: [..., D].

  The norm is bounded below by 1e-12, as PyTorch's `normalize` does.
  """
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x / jnp.sqrt(jnp.maximum(square, 1e-24))


def within(x: Array, norm: Array | float) -> Array:
  """Shortens rows that are longer than a norm to that norm: [..., D]."""
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * norm / jnp.sqrt(jnp.maximum(square, norm * norm))


def feature_std(z: Array) -> Array:
  """How far apart embeddings point: about 1, or 0 where they have collapsed.

  The standard deviation over the batch of each dimension of the unit vectors,
  averaged, times the root of D (Chen & He 2021, figure 2). It is measured, not
  trained: no gradient passes.

  Args:
    z: [B, D].

  Returns:
    [], at least f32; 1 where the vectors point everywhere alike.
  """
  z = jax.lax.stop_gradient(z)
  z = unit(z.astype(jnp.promote_types(z.dtype, jnp.float32)))
  return jnp.std(z, axis=0).mean() * z.shape[-1]**0.5


def regression_loss(prediction: Array, target: Array) -> Array:
  """BYOL's loss: the squared distance of the two vectors on the unit sphere.

  Equal to 2 - 2 cos(prediction, target).

  Args:
    prediction: [B, D].
    target: [B, D].

  Returns:
    [B], each in 0..4.

  Raises:
    ValueError: their shapes differ.
  """
  argument_checks.same_shape(prediction, target, names=('prediction', 'target'))
  return 2 - 2 * jnp.sum(unit(prediction) * unit(target), axis=-1)


def nt_xent(z1: Array, z2: Array, *, temperature: float,
            negatives: Array | None = None,
            apart: Array | None = None) -> Array:
  """SimCLR's loss: each view must find its other among all of the batch.

  Cross entropy over cosine similarities, without a view's own (Chen et al.
  2020; EasyFL fedssl, client.py:info_nce_loss).

  Args:
    z1: [B, D], embeddings of the first views.
    z2: [B, D], of the second views of the same images.
    temperature: divides the similarities.
    negatives: [N, D], further embeddings that match none.
    apart: [N] bool, which of them count; None, all.

  Returns:
    [2 B], one loss for each view.
  """
  z = unit(jnp.concatenate([z1, z2]))
  count = len(z)
  logits = z @ z.T / temperature
  logits = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, logits)
  if negatives is not None:
    more = z @ unit(negatives).T / temperature
    if apart is not None:
      more = jnp.where(apart.reshape(1, -1), more, -jnp.inf)
    logits = jnp.concatenate([logits, more], axis=1)
  other = jnp.roll(jnp.arange(count), count // 2)
  return optax.softmax_cross_entropy_with_integer_labels(logits, other)


def info_nce(query: Array, key: Array, queue: Array, *,
             temperature: float) -> Array:
  """MoCo's loss: a query must find its key among those of a queue.

  Args:
    query: [B, D].
    key: [B, D], the other views'; no gradient reaches it.
    queue: [N, D], unit vectors, keys of earlier batches.
    temperature: divides the similarities.

  Returns:
    [B].
  """
  query, key = unit(query), unit(jax.lax.stop_gradient(key))
  positive = jnp.sum(query * key, axis=-1, keepdims=True)
  logits = jnp.concatenate([positive, query @ queue.T], axis=1) / temperature
  return optax.softmax_cross_entropy_with_integer_labels(
      logits, jnp.zeros(len(query), jnp.int32))


def spectral(z1: Array, z2: Array, *, others: Array, share: Array | float
             ) -> Array:
  """The spectral contrastive loss (HaoChen et al. 2021), of one of several.

  Args:
    z1: [B, D], embeddings of the first views.
    z2: [B, D], of the second views of the same images.
    others: [D, D], the others' mean of z z^T, each weighted by its share.
    share: this one's share; 1 is the loss of someone who is alone.

  Returns:
    [], whose gradient is the union's with respect to this one's embeddings.
  """
  count = len(z1)
  similar = z1 @ z2.T
  apart = ~jnp.eye(count, dtype=bool)
  repel = jnp.sum(jnp.square(similar), where=apart) / (count * (count - 1))
  cross = sum(jnp.sum((z @ others) * z) for z in (z1, z2)) / (2 * count)
  return -2 * jnp.trace(similar) / count + share * repel + 2 * cross
