"""Losses on embeddings. A `config.loss` is ([B, D], [B, D]) -> [B]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedu_jax.core import argument_checks
from fedu_jax.core.state import Array


def unit(x: Array) -> Array:
  """Scales vectors [..., D] to length one.

  A norm below 1e-12 counts as 1e-12, as in PyTorch's `normalize`.
  """
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x / jnp.sqrt(jnp.maximum(square, 1e-24))


def within(x: Array, norm: Array | float) -> Array:
  """Shortens vectors [..., D] that are longer than `norm` to that length."""
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * norm / jnp.sqrt(jnp.maximum(square, norm * norm))


def feature_std(z: Array) -> Array:
  """Measures the spread of embeddings: about 1, or 0 if they have collapsed.

  It is the standard deviation over the batch of each dimension of the unit
  vectors, averaged over dimensions, times the square root of D (Chen & He 2021,
  figure 2). No gradient passes.

  Args:
    z: embeddings, [B, D].

  Returns:
    [], at least f32; 1 for directions that are uniform on the sphere.
  """
  z = jax.lax.stop_gradient(z)
  z = unit(z.astype(jnp.promote_types(z.dtype, jnp.float32)))
  return jnp.std(z, axis=0).mean() * z.shape[-1]**0.5


def regression_loss(prediction: Array, target: Array) -> Array:
  """BYOL's loss: the squared distance of the two vectors, scaled to length 1.

  It equals 2 - 2 cos(prediction, target).

  Args:
    prediction: the predictor's output, [B, D].
    target: the target encoder's output, [B, D].

  Returns:
    [B], each from 0 to 4.

  Raises:
    ValueError: the shapes differ.
  """
  argument_checks.same_shape(prediction, target, names=('prediction', 'target'))
  return 2 - 2 * jnp.sum(unit(prediction) * unit(target), axis=-1)


def nt_xent(z1: Array, z2: Array, *, temperature: float,
            negatives: Array | None = None,
            apart: Array | None = None) -> Array:
  """SimCLR's loss: each view must pick the other view of its image.

  It is the cross entropy over a view's cosine similarities to the 2 B - 1 other
  views of the batch (Chen et al. 2020; EasyFL fedssl, client.py:info_nce_loss).

  Args:
    z1: embeddings of the first views, [B, D].
    z2: embeddings of the second views of the same images, [B, D].
    temperature: the divisor of the similarities.
    negatives: more embeddings, of other images, [N, D].
    apart: [N] bool, which `negatives` count; None means all.

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
  """MoCo's loss: a query must pick its key among the keys of a queue.

  Args:
    query: embeddings of one view, [B, D].
    key: the key encoder's embeddings of the other view, [B, D]; they get no
      gradient.
    queue: keys of earlier batches, unit vectors [N, D].
    temperature: the divisor of the similarities.

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
  """The spectral contrastive loss (HaoChen et al. 2021) of one client of many.

  Its gradient with respect to this client's embeddings is that of the loss over
  the images of all clients.

  Args:
    z1: embeddings of the first views, [B, D].
    z2: embeddings of the second views of the same images, [B, D].
    others: the sum over the other clients of share * mean of z z^T, [D, D].
    share: this client's share of all images; 1 for a client alone.

  Returns:
    [].
  """
  count = len(z1)
  similar = z1 @ z2.T
  apart = ~jnp.eye(count, dtype=bool)
  repel = jnp.sum(jnp.square(similar), where=apart) / (count * (count - 1))
  cross = sum(jnp.sum((z @ others) * z) for z in (z1, z2)) / (2 * count)
  return -2 * jnp.trace(similar) / count + share * repel + 2 * cross


# config.loss.name -> a function.
LOSSES: dict[str, Callable[..., Array]] = {
    'regression_loss': regression_loss,
}
