"""SimCLR: two views of an image attract, views of other images repel."""

import jax.numpy as jnp

from fedu_jax.core.state import Array, Learner, Online
from fedu_jax.learners import online_step
from fedu_jax.learners.losses import feature_std, nt_xent
from fedu_jax.models import networks


def simclr(nets: networks.Nets, view: online_step.View, *,
           make_tx: online_step.MakeTx, temperature: float = 0.07) -> Learner:
  """Builds SimCLR as a Learner (Chen et al. 2020; EasyFL fedssl, client.py).

  Both views go through the encoder in one pass and share batch statistics, as
  in the released code. The predictor is not used.

  Args:
    nets: the encoder's and the predictor's modules.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
    temperature: the divisor of the similarities, 0.07 in the released code.
  """
  def objective(online: Online, images: Array, rng: Array):
    views = online_step.draw_views(nets, view, images, rng)
    z, encoder = networks.forward(
        nets.encoder, online.encoder, jnp.concatenate(views))
    loss = nt_xent(*jnp.split(z, 2), temperature=temperature).mean()
    return (loss, online._replace(encoder=encoder),
            {'feature_std': feature_std(z[:len(images)])})

  return online_step.online_learner(objective, make_tx=make_tx)
