"""BYOL as FedU's released code trains it: the hot core.

Two views of each image; the online encoder and predictor see both, the target
encoder sees both; each prediction regresses the other view's target (Grill et
al. 2020; EasyFL fedssl, model.py:BYOLModel).
"""

from collections.abc import Callable
import functools

import jax
import optax

from fedu_jax.core.state import (
    Array, ClientState, Learner, Metrics, Online, StepState, Variables)
from fedu_jax.core import trees
from fedu_jax.learners.losses import feature_std, regression_loss
from fedu_jax.learners import online_step
from fedu_jax.models import networks

Loss = Callable[[Array, Array], Array]  # [B, D], [B, D] -> [B]

FIRST_TARGETS = ('copy', 'alias')


def byol_step(state: StepState, images: Array, rng: Array, *,
              nets: networks.Nets, view: online_step.View,
              make_tx: online_step.MakeTx, loss: Loss = regression_loss,
              decay: float = 0.99, first_target: str = 'copy',
              stop_gradient: bool = True,
              ema: bool = True) -> tuple[StepState, Metrics]:
  """One optimiser step on the online network and one EMA step of the target.

  The loss is the sum over both directions, without a factor of one half, and
  the mean over the batch. The target runs in training mode: it normalises by
  its batch and tracks its own statistics; the EMA moves parameters only.

  Args:
    state: the client's networks and optimiser.
    images: [B, H, W, C] u8.
    rng: a key, for the two views.
    nets: the encoder's and the predictor's modules.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
    loss: ([B, D] prediction, [B, D] target) -> [B].
    decay: of the target's moving average.
    first_target: 'copy', a target of its own from the start; or 'alias', in
      the client's first round the target is the online encoder itself, shared
      BatchNorm buffers included, as in the released code.
    stop_gradient: False lets the gradient into the target's side. Only where
      the target is the online encoder itself can it move anything: a target of
      its own is no parameter of the optimiser, in the released code neither.
    ema: False leaves the target's parameters as they are, as in the released
      code: in FedU those of the end of the client's first round, if that was
      aliased, or else of the beginning. Only the update rule moves it then.

  Returns:
    The new state, and the metrics 'loss' [] and 'feature_std' [], of the
    projector's output for the first view.
  """
  x1, x2 = (view(images, key) for key in jax.random.split(rng))
  aliased = first_target == 'alias'

  def objective(online):
    z1, z2, encoder = online_step.two_views(
        nets.encoder, online.encoder, x1, x2)
    p1, p2, predictor = online_step.two_views(
        nets.predictor, online.predictor, z1, z2)
    target = state.target
    if aliased:
      target = trees.where(state.first, encoder, target)
    t1, t2, target = online_step.two_views(nets.encoder, target, x1, x2)
    if stop_gradient:
      # No gradient may reach the target: it is the regression's fixed point.
      t1, t2 = jax.lax.stop_gradient((t1, t2))
    value = (loss(p1, t2) + loss(p2, t1)).mean()
    return value, (Online(encoder, predictor), (target, feature_std(z1)))

  value, online, (target, spread), opt_state = online_step.descend(
      objective, state.online, state.opt_state, make_tx(state.round))
  if ema:
    target = target._replace(params=optax.incremental_update(
        online.encoder.params, target.params, 1 - decay))
  if aliased:
    shared = Variables(online.encoder.params, target.batch_stats)
    target = trees.where(state.first, shared, target)
    online = online._replace(
        encoder=trees.where(state.first, shared, online.encoder))
  state = state._replace(online=online, target=target, opt_state=opt_state)
  return state, {'loss': value, 'feature_std': spread}


def byol(nets: networks.Nets, view: online_step.View, *,
         make_tx: online_step.MakeTx, loss: Loss = regression_loss,
         decay: float = 0.99, first_target: str = 'copy',
         stop_gradient: bool = True, ema: bool = True) -> Learner:
  """Builds BYOL as a Learner; the arguments are those of `byol_step`.

  The optimiser is made anew each round, so its momentum starts from zero, as
  in the reference (EasyFL fedssl, client.py:load_optimizer).

  Raises:
    ValueError: `first_target` is neither 'copy' nor 'alias'.
  """
  if first_target not in FIRST_TARGETS:
    raise ValueError(f'first_target must be one of {FIRST_TARGETS}, '
                     f'not {first_target!r}')

  def init(client: ClientState, round_: Array) -> StepState:
    opt_state = make_tx(round_).init(online_step.params_of(client.online))
    return StepState(client.online, client.target, opt_state, round_,
                     client.last_round < 0)

  def final(client: ClientState, state: StepState) -> ClientState:
    return client._replace(online=state.online, target=state.target)

  step = functools.partial(
      byol_step, nets=nets, view=view, make_tx=make_tx, loss=loss, decay=decay,
      first_target=first_target, stop_gradient=stop_gradient, ema=ema)
  return Learner(init, step, final)
