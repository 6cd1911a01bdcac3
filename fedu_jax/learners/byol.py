"""BYOL (Grill et al. 2020), which FedU trains on each client.

Each image gives two random views. The online encoder and predictor see both,
and so does the target encoder. The prediction for one view regresses the
target's output for the other. Details are those of FedU's released code (EasyFL
fedssl, model.py:BYOLModel); the arguments say where the paper differs.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedu_jax.core import trees
from fedu_jax.core.method import Method
from fedu_jax.core.state import (
  Array,
  ClientState,
  Learner,
  Metrics,
  Online,
  PyTree,
  Variables,
)
from fedu_jax.learners import online_step
from fedu_jax.learners.losses import feature_std, regression_loss
from fedu_jax.models import layers
from fedu_jax.models import networks

Loss = Callable[[Array, Array], Array]  # [B, D], [B, D] -> [B]


class Kernels(NamedTuple):
  """The kernels of the networks, as `layers.round_kernels` makes them."""
  encoder: PyTree = ()
  predictor: PyTree = ()
  target: PyTree = ()


class StepState(NamedTuple):
  """BYOL's state during local training, passed from step to step."""
  online: Online
  target: Variables  # an encoder; a target has no predictor
  opt_state: PyTree
  round: Array  # [] i32; sets the learning rate
  first: Array  # [] bool; this is the client's first round (see `byol`)
  rounded: Kernels = Kernels()


FIRST_TARGETS = ('copy', 'alias')


def byol_step(state: StepState, images: Array, rng: Array, *,
              nets: networks.Nets, view: online_step.View,
              make_tx: online_step.MakeTx, loss: Loss = regression_loss,
              decay: float = 0.99, first_target: str = 'copy',
              stop_gradient: bool = True,
              ema: bool = True) -> tuple[StepState, Metrics]:
  """One optimiser step on the online network and one EMA step of the target.

  The loss is summed over both directions, without a factor of one half, and
  averaged over the batch. The target runs in training mode: BatchNorm uses the
  batch's statistics and tracks the target's own. The EMA (exponential moving
  average) changes the target's parameters only.

  Args:
    state: the client's networks and optimiser.
    images: [B, H, W, C] u8 or u16.
    rng: a key for the two views.
    nets: the encoder's and the predictor's modules.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
    loss: ([B, D] prediction, [B, D] target) -> [B].
    decay: the factor of the old target in the moving average.
    first_target: the target in the client's first round. 'copy' is a separate
      network that starts as a copy of the online encoder. 'alias' is the online
      encoder itself with its BatchNorm statistics, as in the released code.
    stop_gradient: False lets the gradient pass through the target's outputs.
      This has an effect only while the target is the online encoder itself: the
      optimiser has no parameters of a separate target, as in the released code.
    ema: True moves the target's parameters after each step. False keeps them
      fixed, and only an update rule changes them. They are those of the
      client's first download; with 'alias', those of the end of its first
      round, as in the released code without its moving average.

  Returns:
    The new state, and the metrics 'loss' [] and 'feature_std' [], which is
    measured on the projector's output for the first view.
  """
  x1, x2 = online_step.draw_views(nets, view, images, rng)
  aliased = first_target == 'alias'

  def objective(online):
    z1, z2, encoder = online_step.two_views(
        nets.encoder, online.encoder, x1, x2, together=nets.together,
        rounded=state.rounded.encoder)
    p1, p2, predictor = online_step.two_views(
        nets.predictor, online.predictor, z1, z2, together=nets.together,
        rounded=state.rounded.predictor)
    target = state.target
    if aliased:
      # While they are one network, their parameters are equal at each step's
      # start, so only a gradient that passes the target needs the online ones.
      params = target.params if stop_gradient else trees.where(
          state.first, encoder.params, target.params)
      target = Variables(params, trees.where(
          state.first, encoder.batch_stats, target.batch_stats))
    t1, t2, target = online_step.two_views(
        nets.encoder, target, x1, x2, together=nets.together,
        rounded=state.rounded.target)
    if stop_gradient:
      # The target is what the prediction regresses: it gets no gradient.
      t1, t2 = jax.lax.stop_gradient((t1, t2))
    value = (loss(p1, t2) + loss(p2, t1)).mean()
    return value, (Online(encoder, predictor), (target, feature_std(z1)))

  value, online, (target, spread), opt_state = online_step.descend(
      objective, state.online, state.opt_state, make_tx(state.round))
  if ema or aliased:
    target = _follow(target, online.encoder.params, decay if ema else 1.,
                     state.first if aliased else None)
  if aliased:
    online = online._replace(encoder=online.encoder._replace(
        batch_stats=trees.where(state.first, target.batch_stats,
                                online.encoder.batch_stats)))
  state = state._replace(online=online, target=target, opt_state=opt_state,
                         rounded=_round(nets, online, target))
  return state, {'loss': value, 'feature_std': spread}


def _round(nets: networks.Nets, online: Online, target: Variables) -> Kernels:
  """Rounds kernels where they are computed: none is read to be rounded."""
  return Kernels(*(layers.round_kernels(net.params, nets.rounded)
                   for net in (*online, target)))


def _follow(target: Variables, params: PyTree, decay: float,
            alias: Array | None) -> Variables:
  """Moves a target's parameters towards `params`; onto them for an alias.

  Args:
    target: the target after its forward passes.
    params: the online encoder's parameters after the optimiser's step.
    decay: the factor of the target's own parameters.
    alias: [] bool, whether the target is the online encoder; None for never.
  """
  new: Array | float = 1 - decay
  old: Array | float = decay
  if alias is not None:
    # As factors, so that no parameter is read for a choice of its own.
    new, old = jnp.where(alias, 1., new), jnp.where(alias, 0., old)
  return target._replace(params=jax.tree.map(
      lambda x, y: (new * x + old * y).astype(y.dtype), params, target.params))


def byol(nets: networks.Nets, view: online_step.View, *,
         make_tx: online_step.MakeTx, loss: Loss = regression_loss,
         decay: float = 0.99, first_target: str = 'copy',
         stop_gradient: bool = True, ema: bool = True) -> Learner:
  """Builds BYOL as a Learner; the arguments are those of `byol_step`.

  Each round makes a new optimiser, so momentum starts from zero, as in the
  released code (EasyFL fedssl, client.py:load_optimizer).

  Raises:
    ValueError: `first_target` is neither 'copy' nor 'alias'.
  """
  if first_target not in FIRST_TARGETS:
    raise ValueError(f'first_target must be one of {FIRST_TARGETS}, '
                     f'not {first_target!r}')

  def init(client: ClientState, round_: Array) -> StepState:
    opt_state = make_tx(round_).init(online_step.params_of(client.online))
    first, target = client.last_round < 0, client.target
    if first_target == 'alias':
      target = target._replace(params=trees.where(
          first, client.online.encoder.params, target.params))
    return StepState(client.online, target, opt_state, round_, first,
                     _round(nets, client.online, target))

  def final(client: ClientState, state: StepState) -> ClientState:
    return client._replace(online=state.online, target=state.target)

  step = functools.partial(
      byol_step, nets=nets, view=view, make_tx=make_tx, loss=loss, decay=decay,
      first_target=first_target, stop_gradient=stop_gradient, ema=ema)
  return Learner(init, step, final)


BYOL = Method(byol, equal_widths=True)
