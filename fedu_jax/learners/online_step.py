"""Parts that the SSL methods share: two forward passes, one optimiser step."""

from collections.abc import Callable
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedu_jax.core.state import (
  Array,
  ClientState,
  Learner,
  Metrics,
  Online,
  PyTree,
  Variables,
)
from fedu_jax.learners.losses import unit
from fedu_jax.models import networks

# (pixels, rng) -> one view of each image, f32. A view with an argument `second`
# is told whether it draws the first or the second view of an image.
View = Callable[..., Array]
MakeTx = Callable[[Array], optax.GradientTransformation]  # round -> transform


class OnlineState(NamedTuple):
  """The state, from step to step, of a method with an online network alone."""
  online: Online
  opt_state: PyTree
  round: Array  # [] i32; sets the learning rate


def params_of(online: Online) -> PyTree:
  """The parameters that the optimiser trains: encoder's and predictor's."""
  return online.encoder.params, online.predictor.params


def _with_params(online: Online, params: PyTree) -> Online:
  encoder, predictor = params
  return Online(online.encoder._replace(params=encoder),
                online.predictor._replace(params=predictor))


def embedding(nets: networks.Nets, online: Online,
              image: Array) -> jax.ShapeDtypeStruct:
  """The shape [1, D] and dtype of the encoder's output for [1, H, W, C]."""
  return jax.eval_shape(lambda: networks.forward(
      nets.encoder, online.encoder, image)[0])


def random_keys(z: jax.ShapeDtypeStruct, rng: Array, count: int) -> Array:
  """Draws unit vectors [count, D] with the width and the dtype of `z`."""
  return unit(jax.random.normal(rng, (count, z.shape[-1]), z.dtype))


def draw_views(nets: networks.Nets, view: View, images: PyTree,
               rng: Array) -> tuple[Array, Array]:
  """Draws two random views of each image, [B, H, W, C] f32 each."""
  keys = jax.random.split(rng)
  told = 'second' in inspect.signature(view).parameters

  def draw(key, second):
    return view(images, key, second) if told else view(images, key)
  if nets.together:  # the same numbers, in one pass over the images
    x1, x2 = jax.vmap(draw)(keys, jnp.array([False, True]))
  else:
    x1, x2 = draw(keys[0], False), draw(keys[1], True)
  return x1, x2


def two_views(module: Any, variables: Variables, x1: Array, x2: Array, *,
              together: bool = False, rounded: PyTree = ()
              ) -> tuple[Array, Array, Variables]:
  """Runs a network on two batches; each is normalised by its own statistics.

  Args:
    module: the network.
    variables: its parameters and statistics.
    x1: the first batch.
    x2: the second batch.
    together: whether both go through the network at once; see `networks.Nets`.
      The result is the same, up to rounding.
    rounded: the network's kernels, rounded; () for none.

  Returns:
    Both outputs, and the variables with the statistics of both passes.
  """
  if together:
    y, variables = networks.forward(module, variables,
                                    jnp.concatenate([x1, x2]), rounded, views=2)
    y1, y2 = jnp.split(y, 2)
  else:
    y1, variables = networks.forward(module, variables, x1, rounded)
    y2, variables = networks.forward(module, variables, x2, rounded)
  return y1, y2, variables


def descend(objective: Callable[[Online], tuple[Array, tuple[Online, PyTree]]],
            online: Online, opt_state: PyTree,
            tx: optax.GradientTransformation
            ) -> tuple[Array, Online, PyTree, PyTree]:
  """One optimiser step on the online network.

  Args:
    objective: online -> (loss [], (online with new statistics, anything else)).
    online: the network before the step.
    opt_state: the optimiser's state before the step.
    tx: the optimiser.

  Returns:
    The loss, the network after the step, what else the objective returned, and
    the optimiser's state after the step.
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
  """Builds the Learner of a method that trains an online network alone.

  Each round makes a new optimiser, as in the released code (EasyFL fedssl,
  client.py:load_optimizer).

  Args:
    objective: (online, images, rng) -> (loss [], online with new statistics,
      more metrics).
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
