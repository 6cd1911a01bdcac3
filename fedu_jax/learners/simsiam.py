"""SimSiam: BYOL without a target; the online network predicts itself."""

import jax

from fedu_jax.core.method import Method
from fedu_jax.core.state import Array, Learner, Online
from fedu_jax.learners import online_step
from fedu_jax.learners.losses import feature_std, regression_loss
from fedu_jax.models import networks


def simsiam(nets: networks.Nets, view: online_step.View, *,
            make_tx: online_step.MakeTx, stop_gradient: bool = True) -> Learner:
  """Builds SimSiam as a Learner (Chen & He 2021; EasyFL fedssl, model.py).

  The loss is the mean over both directions of the negative cosine, from -1 to
  1. FedSimSiam shares encoder and predictor, so it goes with the update rule
  `global_predictor`.

  Args:
    nets: the encoder's and the predictor's modules.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
    stop_gradient: False lets the gradient pass through the predicted output.
  """
  def cosine(prediction, target):  # -cos, from 2 - 2 cos
    return regression_loss(prediction, target).mean() / 2 - 1

  def objective(online: Online, images: Array, rng: Array):
    x1, x2 = online_step.draw_views(nets, view, images, rng)
    z1, z2, encoder = online_step.two_views(
        nets.encoder, online.encoder, x1, x2, together=nets.together)
    p1, p2, predictor = online_step.two_views(
        nets.predictor, online.predictor, z1, z2, together=nets.together)
    if stop_gradient:
      z1, z2 = jax.lax.stop_gradient((z1, z2))
    return ((cosine(p1, z2) + cosine(p2, z1)) / 2, Online(encoder, predictor),
            {'feature_std': feature_std(z1)})

  return online_step.online_learner(objective, make_tx=make_tx)


SIMSIAM = Method(simsiam, equal_widths=True)
