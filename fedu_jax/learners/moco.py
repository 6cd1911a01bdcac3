"""MoCo v1 and v2: a query must pick its key among the keys of a queue."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
from fedu_jax.learners.losses import feature_std, info_nce, unit
from fedu_jax.models import networks


class MoCoMemory(NamedTuple):
  """The keys of a client's last batches, kept between rounds."""
  queue: Array  # [N, D], unit vectors
  next: Array  # [] i32, the next row to be replaced


class MoCoState(NamedTuple):
  """MoCo's state during local training, passed from step to step."""
  online: Online
  target: Variables  # the key encoder
  memory: MoCoMemory
  opt_state: PyTree
  round: Array


def moco(nets: networks.Nets, view: online_step.View, *,
         make_tx: online_step.MakeTx, temperature: float = 0.07,
         decay: float = 0.99, queue_size: int = 4096,
         keep_queue: bool = True) -> Learner:
  """Builds MoCo as a Learner (He et al. 2020; EasyFL fedssl, model.py).

  The loss is symmetric, as in the released code: each view is query and key, so
  a step adds 2 B keys to the queue. The key encoder starts each round from the
  online encoder's parameters, takes its EMA step before the loss, and tracks
  its own statistics. The released code also shuffles the batch of keys. That
  changes nothing here, because the batch is not split over devices. v1 has a
  projector of one layer and temperature 0.07; v2 has two layers and 0.2. The
  predictor is not used.

  Args:
    nets: the encoder's and the predictor's modules.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
    temperature: the divisor of the similarities.
    decay: the factor of the old key encoder in its moving average.
    queue_size: N, the number of keys; a multiple of 2 B.
    keep_queue: False starts every round with the random keys of the first. The
      released code does that in effect: the client loads the server's queue,
      which is never filled.
  """
  def memory(online: Online, rng: Array, image: Array) -> MoCoMemory:
    """Random keys, the same for all clients, as the released code sends."""
    z = online_step.embedding(nets, online, image)
    return MoCoMemory(online_step.random_keys(z, rng, queue_size), jnp.int32(0))

  def init(client: ClientState, round_: Array) -> MoCoState:
    target = client.target._replace(params=client.online.encoder.params)
    return MoCoState(client.online, target, client.memory.learner,
                     make_tx(round_).init(online_step.params_of(client.online)),
                     round_)

  def step(state: MoCoState, images: Array,
           rng: Array) -> tuple[MoCoState, Metrics]:
    if queue_size % (2 * len(images)):
      raise ValueError(f'a queue of {queue_size} keys is no multiple of the '
                       f'{2 * len(images)} keys that a step adds')
    x1, x2 = online_step.draw_views(nets, view, images, rng)
    target = state.target._replace(params=optax.incremental_update(
        state.online.encoder.params, state.target.params, 1 - decay))
    k2, k1, target = online_step.two_views(
        nets.encoder, target, x2, x1, together=nets.together)
    keys = unit(jnp.concatenate([k1, k2]))

    def objective(online):
      q1, q2, encoder = online_step.two_views(
          nets.encoder, online.encoder, x1, x2, together=nets.together)
      loss = lambda q, k: info_nce(q, k, state.memory.queue,
                                   temperature=temperature).mean()
      return (loss(q1, k2) + loss(q2, k1),
              (online._replace(encoder=encoder), feature_std(q1)))

    value, online, spread, opt_state = online_step.descend(
        objective, state.online, state.opt_state, make_tx(state.round))
    start = state.memory.next
    queue = jax.lax.dynamic_update_slice_in_dim(
        state.memory.queue, keys, start, axis=0)
    memory = MoCoMemory(queue, (start + len(keys)) % queue_size)
    return (MoCoState(online, target, memory, opt_state, state.round),
            {'loss': value, 'feature_std': spread})

  def final(client: ClientState, state: MoCoState) -> ClientState:
    after = client._replace(online=state.online, target=state.target)
    if not keep_queue:
      return after
    return after._replace(memory=client.memory._replace(learner=state.memory))

  return Learner(init, step, final, memory)


def check_sizes(config: Mapping[str, Any]) -> None:
  """Checks that the queue holds whole batches of keys.

  Args:
    config: all fields by their dotted names.

  Raises:
    ValueError: it does not.
  """
  size, enqueued = config['learner.queue_size'], 2 * config['batch_size']
  if size % enqueued:
    raise ValueError(f'config.learner.queue_size is {size}; it must be a '
                     f'multiple of {enqueued}, twice batch_size')


MOCO = Method(moco, check=check_sizes)
