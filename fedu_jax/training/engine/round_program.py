"""Compiles a whole round of a recipe into one program.

All programs here call `core.rounds.run_round`, through `run_part`.
"""

from collections.abc import Callable
import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fedu_jax.core import communication
from fedu_jax.core import local_training
from fedu_jax.core import participation
from fedu_jax.core import rounds
from fedu_jax.core import trees
from fedu_jax.core.state import (
  Array,
  Batches,
  ClientArrays,
  ClientState,
  Memory,
  Metrics,
  Online,
  ServerState,
)
from fedu_jax.training.engine import client_execution
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine.recipe import Recipe

# Streams of the run's key. Draws from one stream do not change another.
(INIT, _SHUFFLE, _TRAIN, _COHORT, _MEMORY, _ARRIVAL, _STRAGGLERS) = range(7)

RoundFn = Callable[[ServerState, ClientState, ClientArrays, Array],
                   tuple[ServerState, ClientState, Metrics]]
Made = TypeVar('Made')  # the result of an aggregation


def init_state(recipe: Recipe, online: Online, num_examples: ArrayLike,
               rng: Array, image: Array) -> tuple[ServerState, ClientState]:
  """Makes the server and its clients before the first round.

  Args:
    recipe: the recipe of the federation.
    online: the server's first network. It is copied, because rounds consume it.
    num_examples: the clients' data sizes, [K].
    rng: the run's key.
    image: [1, H, W, C] f32; only its shape is used.

  Returns:
    The server, and the clients, stacked [K, ...].
  """
  own = jax.tree.map(jnp.array, online)
  memory = Memory(
      recipe.learner.memory(own, jax.random.fold_in(rng, _MEMORY), image),
      recipe.rule.memory(own))
  clients = local_training.init_clients(own, num_examples, memory=memory)
  first = recipe.aggregation.memory(clients)
  return ServerState(own, jnp.int32(0), first), clients


def shapes(recipe: Recipe, online: Online, image: tuple[int, ...]
           ) -> tuple[ServerState, ClientState, Array]:
  """Returns the shapes of the server, of one client and of the run's key.

  Args:
    recipe: the recipe of the federation.
    online: the server's first network, or its shapes.
    image: [H, W, C] of an image.
  """
  def init(online):
    rng = jax.random.key(0)
    server, clients = init_state(recipe, online, jnp.ones(1), rng,
                                 jnp.zeros((1, *image)))
    return server, jax.tree.map(lambda x: x[0], clients), rng
  return jax.eval_shape(init, online)


def sent(recipe: Recipe, server: ServerState, client: ClientState,
         num_clients: int) -> communication.Sent:
  """Counts the bytes that a client sends and receives in a round.

  Args:
    recipe: the recipe of the federation.
    server: the server, or its shapes.
    client: one client, or its shapes.
    num_clients: K.
  """
  cohort = recipe.cohort if recipe.is_sampled(num_clients) else num_clients
  return communication.of(recipe.aggregation, recipe.rule, server, client,
                          cohort)


def draw_cohort(recipe: Recipe, rng: Array, round_: Array,
                num_examples: Array) -> Array:
  """Draws the ids [M] of the clients that train in a round.

  Args:
    recipe: the recipe of the federation.
    rng: the run's key.
    round_: the number of the round, [] i32.
    num_examples: the clients' data sizes, [K].
  """
  key = jax.random.fold_in(jax.random.fold_in(rng, _COHORT), round_)
  return recipe.sample(key, num_examples, size=recipe.cohort)


def draw_work(recipe: Recipe, arrays: ClientArrays, rng: Array, round_: Array,
              ids: Array) -> tuple[Batches, Array | None]:
  """Draws each client's batches of a round, and which uploads arrive.

  Args:
    recipe: the recipe of the federation.
    arrays: the clients' images, [M, ...].
    rng: the run's key.
    round_: the number of the round, [] i32.
    ids: the ids of the clients, [M] i32.

  Returns:
    The batches, [M, ...], and the uploads that arrive, [M] bool; None if all
    arrive.
  """
  def keys(stream):
    return rounds.client_rngs(jax.random.fold_in(rng, stream), round_, ids)
  batches = jax.vmap(
      functools.partial(local_training.make_batches,
                        batch_size=recipe.batch_size,
                        epochs=recipe.local_epochs, full=recipe.full_steps),
      in_axes=(0, 0, None))(arrays, keys(_SHUFFLE), round_)
  if recipe.stragglers:
    batches = jax.vmap(functools.partial(
        participation.shorten, stragglers=recipe.stragglers,
        least=recipe.least))(batches, keys(_STRAGGLERS))
  if not recipe.dropout:
    return batches, None
  return batches, jax.vmap(functools.partial(
      participation.arrives, dropout=recipe.dropout))(keys(_ARRIVAL))


def training_rngs(rng: Array, round_: Array, ids: Array) -> Array:
  """Returns the clients' keys of the training in a round, [M], by their ids."""
  return rounds.client_rngs(jax.random.fold_in(rng, _TRAIN), round_, ids)


def run_part(recipe: Recipe, server: ServerState, clients: ClientState,
             arrays: ClientArrays, ids: Array, rng: Array, *,
             aggregate: Callable[[ServerState, ClientState], Made],
             meshed: bool = False) -> tuple[Made, ClientState, Metrics]:
  """Runs `rounds.run_round` for clients that are on the device.

  Args:
    recipe: the recipe of the federation.
    server: the server.
    clients: the cohort, or a slice of it, [M, ...].
    arrays: the clients' images, [M, ...].
    ids: the clients' ids, [M] i32.
    rng: the run's key.
    aggregate: as for `rounds.run_round`.
    meshed: whether this is called within `device_mesh.over_clients`.

  Returns:
    The result of `rounds.run_round`; the metrics also have 'cohort', the ids.
  """
  batches, arrived = draw_work(recipe, arrays, rng, server.round, ids)
  if meshed:
    batches = batches._replace(index=device_mesh.by_data(batches.index))
  made, clients, metrics = rounds.run_round(
      server, clients, batches, jax.random.fold_in(rng, _TRAIN),
      aggregate=aggregate, arrived=arrived, ids=ids, rule=recipe.rule.fn,
      local_update=functools.partial(
          local_training.local_update, learner=recipe.learner,
          distance=recipe.divergence, packed=recipe.packed,
          masked=recipe.masks_steps),
      execution=client_execution.of(
          recipe, server.online, _pixels(arrays), clients=len(ids)))
  return made, clients, metrics | {'cohort': ids}


def _pixels(arrays: ClientArrays) -> tuple[int, ...]:
  """Returns [H, W, C] of the clients' images, [M, N, H, W, C]."""
  return jax.tree.leaves(arrays.images)[0].shape[2:]


def make_round(recipe: Recipe, num_clients: int, *,
               axis: str | None = None) -> RoundFn:
  """Builds a whole round of clients that are all on the devices.

  Args:
    recipe: the recipe of the federation.
    num_clients: K.
    axis: the mesh axis that the clients are sharded over, if any. The function
      then runs on each device, with its share of the clients. Clients after K
      are padding without examples.

  Returns:
    (server, clients, arrays, rng) -> (server, clients, metrics).

  Raises:
    ValueError: a cohort would be drawn among clients on several devices.
  """
  sampled = recipe.is_sampled(num_clients)
  if sampled and axis:
    raise ValueError('clients on several devices all train: draw a cohort from '
                     'a store')
  aggregate = recipe.aggregation.fn
  if recipe.in_sums:
    aggregate = functools.partial(aggregate, add=functools.partial(
        trees.weighted_sum, axis=axis))
  elif axis:
    aggregate = _gathered(aggregate, axis, num_clients)

  def one_round(server, clients, arrays, rng):
    ids = jnp.arange(len(clients.num_examples))
    if axis:
      ids += jax.lax.axis_index(axis) * len(ids)
    mine = clients
    if sampled:
      ids = draw_cohort(recipe, rng, server.round, clients.num_examples)
      mine, arrays = trees.take((clients, arrays), ids)
    server, mine, metrics = run_part(
        recipe, server, mine, arrays, ids, rng, aggregate=aggregate,
        meshed=axis is not None)
    return server, trees.put(clients, ids, mine) if sampled else mine, metrics

  return one_round


def _gathered(aggregate: Callable[[ServerState, ClientState], ServerState],
              axis: str, num_clients: int
              ) -> Callable[[ServerState, ClientState], ServerState]:
  """Gives an aggregation the clients of all devices, on each device."""
  def gather(x):
    return jax.lax.all_gather(x, axis, tiled=True)[:num_clients]
  return lambda server, clients: aggregate(
      server, jax.tree.map(gather, clients))


def compile_round(recipe: Recipe, server: ServerState, clients: ClientState,
                  arrays: ClientArrays, rng: Array, *,
                  layout: device_mesh.Layout | None = None
                  ) -> jax.stages.Compiled:
  """Compiles a round for arguments like these; it serves all rounds.

  The program takes the last four arguments. It consumes the buffers of `server`
  and `clients`, and writes their new states there. If all arguments have one
  more leading axis, it runs several federations at once, vmapped.

  Args:
    recipe: the recipe of the federation.
    server: the server.
    clients: all clients, and padding.
    arrays: the clients' images.
    rng: the run's key.
    layout: the layout of clients on devices; None for one device.
  """
  *several, num_clients = clients.num_examples.shape
  return _jitted(recipe, num_clients, layout, bool(several)).lower(
      server, clients, arrays, rng).compile()


# Cached, because clients that train alone share a program, and so do the seeds
# of an experiment.
@functools.lru_cache(maxsize=32)
def _jitted(recipe: Recipe, num_clients: int,
            layout: device_mesh.Layout | None, several: bool
            ) -> jax.stages.Wrapped:
  """A round; JAX compiles it once for each set of shapes."""
  if layout and layout.mesh:
    by_client = device_mesh.BY_CLIENT
    one_round = device_mesh.over_clients(
        make_round(recipe, layout.num_clients, axis=device_mesh.AXIS),
        layout.mesh,
        in_specs=(device_mesh.EVERYWHERE, by_client, by_client,
                  device_mesh.EVERYWHERE),
        out_specs=(device_mesh.EVERYWHERE, by_client, by_client))
  else:
    one_round = make_round(recipe, num_clients)
  if several:
    one_round = jax.vmap(one_round)
  # keep_unused, so that arguments are donated even if no rule reads them.
  return jax.jit(one_round, donate_argnums=(0, 1), keep_unused=True)
