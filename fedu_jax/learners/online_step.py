"""What the SSL methods share: two views, one gradient, one optimiser step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from fedu_jax.core.state import (
    Array, ClientState, Learner, Metrics, Online, PyTree, Variables)
from fedu_jax.learners.losses import unit
from fedu_jax.models import networks

View = Callable[[Array, Array], Array]  # (images u8, rng) -> images f32
MakeTx = Callable[[Array], optax.GradientTransformation]  # round -> transform


class OnlineState(NamedTuple):
  """The carry of a method that trains an online network and nothing else."""
  online: Online
  opt_state: PyTree
  round: Array  # [] i32; sets the learning rate


def params_of(online: Online) -> PyTree:
  """What the optimiser moves: the encoder's and the predictor's params."""
  return online.encoder.params, online.predictor.params


def _with_params(online: Online, params: PyTree) -> Online:
  encoder, predictor = params
  return Online(online.encoder._replace(params=encoder),
                online.predictor._replace(params=predictor))


def embedding(nets: networks.Nets, online: Online,
              image: Array) -> jax.ShapeDtypeStruct:
  """What the encoder makes of images [1, H, W, C]: its shape [1, D] and dtype.
  """
  return jax.eval_shape(lambda: networks.forward(
      nets.encoder, online.encoder, image)[0])


def random_keys(z: jax.ShapeDtypeStruct, rng: Array, count: int) -> Array:
  """Draws unit vectors like those embeddings: [count, D]."""
  return unit(jax.random.normal(rng, (count, z.shape[-1]), z.dtype))


def two_views(module: Any, variables: Variables, x1: Array,
              x2: Array) -> tuple[Array, Array, Variables]:
  """Two separate forward passes: each view has its own batch statistics."""
  y1, variables = networks.forward(module, variables, x1)
  y2, variables = networks.forward(module, variables, x2)
  return y1, y2, variables


def descend(objective: Callable[[Online], tuple[Array, tuple[Online, PyTree]]],
            online: Online, opt_state: PyTree,
            tx: optax.GradientTransformation
            ) -> tuple[Array, Online, PyTree, PyTree]:
  """One optimiser step on the online network.

  Args:
    objective: online -> (loss [], (the online network with the statistics that
      the forward passes left, anything else)).
    online: where the gradient is taken.
    opt_state: the optimiser's.
    tx: the optimiser.

  Returns:
    The loss, the network after the step, the objective's anything else, and
    the optimiser's state.
  """
  params = params_of(online)
  (value, (online, aux)), grads = jax.value_and_grad(
      lambda params: objective(_with_params(online, params)),
      has_aux=True)(params)
  updates, opt_state = tx.update(grads, opt_state, params)
  params = optax.apply_updates(params, updates)
  return value, _with_params(online, params), aux, opt_state


def online_learner(
    objective: Callable[[Online, PyTree, Array],
                        tuple[Array, Online, Metrics]], *,
    make_tx: MakeTx) -> Learner:
  """Builds the Learner of a method whose clients train an online network only.

  The optimiser is made anew each round, as in the reference (EasyFL fedssl,
  client.py:load_optimizer).

  Args:
    objective: (online, images, rng) -> (loss [], online with new statistics,
      further metrics).
    make_tx: round -> the optimiser.
  """
  def init(client: ClientState, round_: Array) -> OnlineState:
    return OnlineState(client.online,
                       make_tx(round_).init(params_of(client.online)), round_)

  def step(state: OnlineState, images: PyTree,
           rng: Array) -> tuple[OnlineState, Metrics]:
    def of(online):
      value, online, metrics = objective(online, images, rng)
      return value, (online, metrics)
    value, online, metrics, opt_state = descend(
        of, state.online, state.opt_state, make_tx(state.round))
    return (OnlineState(online, opt_state, state.round),
            {'loss': value} | metrics)

  def final(client: ClientState, state: OnlineState) -> ClientState:
    return client._replace(online=state.online)

  return Learner(init, step, final)
