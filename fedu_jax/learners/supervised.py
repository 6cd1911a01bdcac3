"""Supervised training: the upper bound that FedU is compared with."""

import optax

from fedu_jax.core.method import Method
from fedu_jax.core.state import Array, Labelled, Learner, Online
from fedu_jax.learners import online_step
from fedu_jax.models import networks


def supervised(nets: networks.Nets, view: online_step.View, *,
               make_tx: online_step.MakeTx) -> Learner:
  """Builds supervised classification as a Learner (McMahan et al. 2017).

  The predictor is the classifier: one layer with a feature for each class, on
  an encoder without a projector. FedU's paper does not state the augmentation
  of this baseline; here it is one view of the SSL methods.

  Args:
    nets: the encoder's and the classifier's modules.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
  """
  def objective(online: Online, examples: Labelled, rng: Array):
    z, encoder = networks.forward(
        nets.encoder, online.encoder, view(examples.images, rng))
    logits, predictor = networks.forward(nets.predictor, online.predictor, z)
    loss = optax.softmax_cross_entropy_with_integer_labels(
        logits, examples.labels).mean()
    return loss, Online(encoder, predictor), {}

  return online_step.online_learner(objective, make_tx=make_tx)


SUPERVISED = Method(supervised, labelled=True)
