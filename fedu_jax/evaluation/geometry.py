"""The geometry of features: alignment, uniformity and effective rank."""

import jax
import jax.numpy as jnp

from fedu_jax.core import precision
from fedu_jax.core.state import Array
from fedu_jax.evaluation import probes
from fedu_jax.learners.losses import unit


def alignment(z1: Array, z2: Array) -> Array:
  """The mean squared distance of two views' unit features, [] f32.

  This is the measure of Wang & Isola (2020) with alpha = 2; NaN if features are
  not finite.

  Args:
    z1: features of one view of each image, [N, D].
    z2: features of another view, [N, D].
  """
  distance = jnp.mean(jnp.sum(jnp.square(unit(z1) - unit(z2)), axis=-1))
  return jnp.where(probes.finite(z1, z2), distance, jnp.nan)


@precision.full
def uniformity(z: Array, *, temperature: float = 2.0) -> Array:
  """The log of the mean Gaussian potential over pairs of images, [] f32.

  This is the measure of Wang & Isola (2020); NaN if features are not finite.

  Args:
    z: features of different images, [N, D].
    temperature: t in exp(-t distance^2).
  """
  sound = probes.finite(z)
  z = unit(z)

  def potential(row):
    distance = 2 - 2 * z @ row
    return jnp.sum(jnp.exp(-temperature * distance)) - 1  # without itself
  total = jnp.sum(jax.lax.map(potential, z, batch_size=256))
  return jnp.where(sound, jnp.log(total / (len(z) * (len(z) - 1))), jnp.nan)


@precision.full
def effective_rank(z: Array) -> Array:
  """The number of directions that features vary in, [] f32.

  It is the exponential of the entropy of the singular values of the centred
  features (Roy & Vetterli 2007; "RankMe", Garrido et al. 2023, does not centre
  them). It is 0 if features do not vary, and NaN if they are not finite.

  Args:
    z: features of different images, [N, D].
  """
  singular = jnp.linalg.svd(z - z.mean(0, keepdims=True), compute_uv=False)
  total = singular.sum()
  # Rounding leaves something of features that are all alike.
  varies = total > 1e-5 * jnp.linalg.norm(z)
  share = singular / jnp.where(varies, total, 1)
  entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(
      jnp.where(share > 0, share, 1)), 0))
  return jnp.where(probes.finite(z), jnp.where(varies, jnp.exp(entropy), 0),
                   jnp.nan)
