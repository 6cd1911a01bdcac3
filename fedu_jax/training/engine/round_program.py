"""From a config to a whole round as one compiled program."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import ml_collections
import optax

from fedu_jax.core import communication
from fedu_jax.core import local_training
from fedu_jax.core import participation
from fedu_jax.core import rounds
from fedu_jax.core.state import (
    Array, ClientArrays, ClientState, Learner, Memory, Metrics, Online,
    ServerState)
from fedu_jax.core import trees
from fedu_jax.models import networks
from fedu_jax.training.config import contracts
from fedu_jax.training.config import registry
from fedu_jax.training.engine import device_mesh

# Streams of the run's key: what is drawn from one never shifts another.
(INIT, _SHUFFLE, _TRAIN, _COHORT, _MEMORY, _ARRIVAL, _STRAGGLERS) = range(7)

RoundFn = Callable[[ServerState, ClientState, ClientArrays, Array],
                   tuple[ServerState, ClientState, Metrics]]


def learning_rate(highest: float, schedule: str, rounds: int,
                  round_: ArrayLike) -> ArrayLike:
  """The learning rate of a round, counted from 0."""
  if schedule == 'cosine':
    return 0.5 * highest * (1 + jnp.cos(jnp.pi * round_ / rounds))
  return highest


def make_learner(config: ml_collections.ConfigDict,
                 nets: networks.Nets) -> Learner:
  """Binds the SSL method and its optimiser: SGD at the round's rate."""
  def make_tx(round_):
    chosen = config.optimizer
    rate = learning_rate(chosen.learning_rate, chosen.schedule, config.rounds,
                         round_)
    return optax.chain(optax.add_decayed_weights(chosen.weight_decay),
                       optax.sgd(rate, momentum=chosen.momentum))
  return registry.bind(
      config, 'learner', make_tx=make_tx,
      loss=registry.bind(config, 'loss'))(nets, registry.view(config))


def init_state(config: ml_collections.ConfigDict, nets: networks.Nets,
               online: Online, num_examples: ArrayLike,
               rng: Array, image: Array) -> tuple[ServerState, ClientState]:
  """Makes the server and its clients, who have not trained yet.

  Args:
    config: the whole config.
    nets: the networks.
    online: the server's first network; it is copied, since rounds consume it.
    num_examples: [K], the clients' data sizes.
    rng: the run's key.
    image: [1, H, W, C] f32, for its shape alone.
  """
  own = jax.tree.map(jnp.array, online)
  memory = Memory(
      make_learner(config, nets).memory(
          own, jax.random.fold_in(rng, _MEMORY), image),
      registry.rule(config).memory(own))
  clients = local_training.init_clients(own, num_examples, memory=memory)
  first = registry.aggregation(config).memory(clients)
  return ServerState(own, jnp.int32(0), first), clients


def shapes(config: ml_collections.ConfigDict, nets: networks.Nets,
           online: Online, image: tuple[int, ...]
           ) -> tuple[ServerState, ClientState, Array]:
  """The shapes of the server, of one client and of the run's key.

  Args:
    config: the whole config.
    nets: the networks.
    online: the server's first network, or its shapes.
    image: [H, W, C] of an image.
  """
  def init(online):
    rng = jax.random.key(0)
    server, clients = init_state(config, nets, online, jnp.ones(1), rng,
                                 jnp.zeros((1, *image)))
    return server, jax.tree.map(lambda x: x[0], clients), rng
  return jax.eval_shape(init, online)


def sent(config: ml_collections.ConfigDict, server: ServerState,
         client: ClientState, num_clients: int) -> communication.Sent:
  """Counts the bytes that a client sends and receives in a round.

  Args:
    config: the whole config.
    server: the server, or its shapes.
    client: one client, or its shapes.
    num_clients: K.
  """
  cohort = config.cohort if is_sampled(config, num_clients) else num_clients
  return communication.of(registry.aggregation(config), registry.rule(config),
                          server, client, cohort)


def make_training(config: ml_collections.ConfigDict, nets: networks.Nets, *,
                  meshed: bool = False
                  ) -> Callable[..., tuple[ClientState, ClientState, Metrics]]:
  """Builds what clients do in a round, shuffling included, as one function.

  Args:
    config: the whole config.
    nets: the networks.
    meshed: whether it is called within `device_mesh.over_clients`.

  Returns:
    (server, clients [M], arrays [M], ids [M], rng) -> the clients, what the
    server sees of them, their metrics [M].
  """
  local_update = functools.partial(
      local_training.local_update, learner=make_learner(config, nets),
      distance=registry.bind(config, 'divergence'))
  rule = registry.bind(config, 'rule')
  make_batches = functools.partial(
      local_training.make_batches, batch_size=config.batch_size,
      epochs=config.local_epochs)
  chosen = config.participation

  def training(server, clients, arrays, ids, rng):
    def rngs(stream):
      return rounds.client_rngs(
          jax.random.fold_in(rng, stream), server.round, ids)
    batches = jax.vmap(make_batches, in_axes=(0, 0, None))(
        arrays, rngs(_SHUFFLE), server.round)
    if meshed:
      batches = batches._replace(index=device_mesh.by_data(batches.index))
    if chosen.stragglers:
      batches = jax.vmap(functools.partial(
          participation.shorten, stragglers=chosen.stragglers,
          least=chosen.least))(batches, rngs(_STRAGGLERS))
    arrived = jax.vmap(functools.partial(
        participation.arrives, dropout=chosen.dropout))(
            rngs(_ARRIVAL)) if chosen.dropout else None
    clients, metrics = rounds.train_cohort(
        server, clients, batches, jax.random.fold_in(rng, _TRAIN),
        local_update=local_update, rule=rule, execution=config.execution,
        ids=ids)
    clients, seen = rounds.uploads(clients, arrived, metrics['sound'])
    if arrived is None:
      arrived = jnp.ones(ids.shape, bool)
    return clients, seen, metrics | {'cohort': ids, 'arrived': arrived}

  return training


def make_sampling(config: ml_collections.ConfigDict
                  ) -> Callable[[Array, Array, Array], Array]:
  """Builds what draws cohorts: (rng, round, num_examples [K]) -> ids [M]."""
  sample = registry.bind(config, 'sampling', size=config.cohort)
  return lambda rng, round_, num_examples: contracts.cohort(sample(
      jax.random.fold_in(jax.random.fold_in(rng, _COHORT), round_),
      num_examples), name=config.sampling.name, size=config.cohort)


def make_round(config: ml_collections.ConfigDict, nets: networks.Nets,
               num_clients: int, *, axis: str | None = None) -> RoundFn:
  """Builds a whole round of clients that are all on the device.

  Args:
    config: the whole config.
    nets: the networks.
    num_clients: K.
    axis: of a mesh, over whose devices the clients are spread, as many on each;
      those beyond K are padding, without examples. The function is then what
      each device does.

  Raises:
    ValueError: a cohort is to be drawn among clients on several devices.
  """
  training = make_training(config, nets, meshed=axis is not None)
  sample = make_sampling(config)
  aggregate = registry.bind(config, 'aggregation', add=functools.partial(
      trees.weighted_sum, axis=axis))
  if axis and not registry.takes(config, 'aggregation', 'add'):
    aggregate = _gathered(aggregate, axis, num_clients)
  sampled = is_sampled(config, num_clients)
  if sampled and axis:
    raise ValueError('clients on several devices all train: draw a cohort from '
                     'a store')

  def one_round(server, clients, arrays, rng):
    ids = jnp.arange(len(clients.num_examples))
    if axis:
      ids += jax.lax.axis_index(axis) * len(ids)
    mine = clients
    if sampled:
      ids = sample(rng, server.round, clients.num_examples)
      mine, arrays = trees.take((clients, arrays), ids)
    mine, seen, metrics = training(server, mine, arrays, ids, rng)
    clients = trees.put(clients, ids, mine) if sampled else mine
    return aggregate(server, seen), clients, metrics

  return one_round


def is_sampled(config: ml_collections.ConfigDict, num_clients: int) -> bool:
  """Whether each round trains a cohort of the clients only."""
  return 0 < config.cohort < num_clients


def _gathered(aggregate: Callable[[ServerState, ClientState], ServerState],
              axis: str, num_clients: int
              ) -> Callable[[ServerState, ClientState], ServerState]:
  """Shows an aggregation the clients of all devices, on each."""
  def gather(x):
    return jax.lax.all_gather(x, axis, tiled=True)[:num_clients]
  return lambda server, clients: aggregate(
      server, jax.tree.map(gather, clients))


def compile_round(config: ml_collections.ConfigDict, nets: networks.Nets,
                  server: ServerState, clients: ClientState,
                  arrays: ClientArrays, rng: Array, *,
                  layout: device_mesh.Layout | None = None
                  ) -> jax.stages.Compiled:
  """Compiles a round for arguments like these; it serves all rounds.

  The compiled program takes the last four arguments, and consumes the buffers
  of `server` and `clients`: their successors are written in their place. If
  each has one more leading axis, it runs as many federations at once, vmapped.

  Args:
    config: the whole config.
    nets: the networks.
    server: the server.
    clients: all clients, and padding.
    arrays: their images.
    rng: the run's key.
    layout: how clients are spread over devices; None means not at all.
  """
  *several, num_clients = clients.num_examples.shape
  return _jitted(ml_collections.FrozenConfigDict(config), nets, num_clients,
                 layout, bool(several), registry.functions(config)).lower(
                     server, clients, arrays, rng).compile()


# Clients that train alone are alike, and so are an experiment's seeds, which
# come by turns.
@functools.lru_cache(maxsize=32)
def _jitted(config: ml_collections.FrozenConfigDict, nets: networks.Nets,
            num_clients: int, layout: device_mesh.Layout | None, several: bool,
            functions: tuple[Callable, ...]) -> jax.stages.Wrapped:
  """A round, which JAX traces and compiles once for arguments like these."""
  del functions  # another function of the same name is another round
  if layout and layout.mesh:
    by_client = device_mesh.BY_CLIENT
    one_round = device_mesh.over_clients(
        make_round(config, nets, layout.num_clients, axis=device_mesh.AXIS),
        layout.mesh,
        in_specs=(device_mesh.EVERYWHERE, by_client, by_client,
                  device_mesh.EVERYWHERE),
        out_specs=(device_mesh.EVERYWHERE, by_client, by_client))
  else:
    one_round = make_round(config, nets, num_clients)
  if several:
    one_round = jax.vmap(one_round)
  # Kept though unused: what a rule does not read must be donated all the same.
  return jax.jit(one_round, donate_argnums=(0, 1), keep_unused=True)
