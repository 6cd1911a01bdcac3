"""A round: download, local training, upload, and aggregation."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from fedu_jax.core import trees
from fedu_jax.core.state import (
  Array,
  Batches,
  ClientState,
  Metrics,
  PyTree,
  ServerState,
)

EXECUTIONS = ('auto', 'vmap', 'map')

Made = TypeVar('Made')  # the result of an aggregation


def map_clients(fn: Callable[..., PyTree], *,
                execution: str = 'auto') -> Callable[..., PyTree]:
  """Turns a function of one client into one of stacked clients [K, ...].

  Args:
    fn: a function of one client's arguments.
    execution: 'map' runs one client after the other, in one program; 'vmap'
      runs all clients at once; 'auto' is 'map' here, and a run chooses before.
      vmap turns each convolution into a grouped one. That was measured 2.5 to
      2.7 times slower on CPU at width 16 and equal at width 8. Compiled for an
      H100, five clients at once move 1.5 times as many bytes at width 64, and
      1.2 times at width 16 with a quarter of the kernels; no GPU has been
      timed. vmap needs the temporary memory of all clients at once, and a
      skipped step takes as long as any other.

  Returns:
    The function of stacked arguments. Both executions give the same result, up
    to the rounding of sums in another order.

  Raises:
    ValueError: `execution` is none of these.
  """
  if execution not in EXECUTIONS:
    raise ValueError(f'execution must be one of {EXECUTIONS}, '
                     f'not {execution!r}')
  if execution == 'vmap':
    return jax.vmap(fn)

  def one_by_one(*args):
    if len(jax.tree.leaves(args)[0]) > 1:
      return jax.lax.map(lambda row: fn(*row), args)
    # A TPU's compiler takes a loop of one turn apart, and then trains twice.
    alone = fn(*jax.tree.map(lambda x: x[0], args))
    return jax.tree.map(lambda x: x[None], alone)
  return one_by_one


def client_rngs(rng: Array, round: Array, ids: Array) -> Array:
  """Returns a key for each client, from the round and the client's id alone."""
  rng = jax.random.fold_in(rng, round)
  return jax.vmap(lambda i: jax.random.fold_in(rng, i))(ids)


def train_cohort(server: ServerState, clients: ClientState, batches: Batches,
                 rng: Array, *,
                 local_update: Callable[..., tuple[ClientState, Metrics]],
                 rule: Callable[[ClientState, ServerState], ClientState],
                 execution: str = 'auto', ids: Array | None = None
                 ) -> tuple[ClientState, Metrics]:
  """Downloads the server's network to a cohort, or a slice of one; trains it.

  The update rule runs at the download, as in the released code. It combines the
  current server with the client's state after its last training, even if that
  was many rounds ago.

  Args:
    server: the server.
    clients: the cohort, stacked [M, ...].
    batches: the cohort's batches, stacked [M, ...].
    rng: the run's key.
    local_update: (client, batches, rng) -> (client, metrics), for one client.
    rule: (client, server) -> client, for one client.
    execution: 'map' or 'vmap', see `map_clients`.
    ids: the ids of the clients, [M] i32; None means 0 to M - 1.

  Returns:
    The trained cohort, and these metrics, [M] each:
      those of `local_update`;
      'global_predictor', bool: whether the client's predictor equals the
        server's after the download. Under DAPU it does if the divergence was
        below the threshold, and in a client's first round;
      'sound', bool: all numbers after the training can be averaged, see
        `trees.sound`. A client that is not sound is replaced by `returned`.
  """
  if ids is None:
    ids = jnp.arange(len(clients.num_examples))

  def download(client):
    client = rule(client, server)
    return client, trees.equal(client.online.predictor, server.online.predictor)

  def train(client, batches, rng):
    trained, metrics = local_update(client, batches, rng)
    # The client's divergence is checked as one of the metrics.
    sound = trees.sound((trained.online, trained.target, trained.memory,
                         trained.num_examples, metrics))
    # Done here for each client: on stacked clients it would copy them all.
    trained = trees.where(sound, trained, returned(
        trained._replace(memory=client.memory), server))
    return trained, metrics | {'sound': sound}
  # Always vmap, because the update rule is elementwise.
  clients, took = jax.vmap(download)(clients)
  clients, metrics = map_clients(train, execution=execution)(
      clients, batches, client_rngs(rng, server.round, ids))
  return clients, metrics | {'global_predictor': took}


def returned(client: ClientState, server: ServerState) -> ClientState:
  """Resets a client to the global model, after training gave unsound numbers.

  The online network and the target become the server's, and the divergence 0.
  `uploaded` becomes False, so an update rule treats the client like one with a
  lost upload. Its memory stays, except arrays that are not sound: these become
  zeros, which all our methods read as an empty memory.

  Args:
    client: one client, with its memory before the training.
    server: the server of the download.

  Returns:
    The client after the reset.
  """
  def kept(x):
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      return x
    return jnp.where(trees.sound(x), x, jnp.zeros((), x.dtype))
  return client._replace(
      online=server.online, target=server.online.encoder,
      divergence=jnp.zeros_like(client.divergence), uploaded=jnp.array(False),
      memory=jax.tree.map(kept, client.memory))


def uploads(clients: ClientState, arrived: Array | None, sound: Array
            ) -> tuple[ClientState, ClientState]:
  """Removes lost and unsound uploads from what the server sees.

  The server sees such clients with num_examples 0, so that they do not count. A
  client with a lost upload keeps its trained network.

  Args:
    clients: a trained cohort, stacked [M, ...].
    arrived: [M] bool, the uploads that reach the server; None means all.
    sound: [M] bool, a metric of `train_cohort`.

  Returns:
    The cohort with `uploaded` set, and the cohort as the server sees it.
  """
  counts = sound if arrived is None else arrived & sound
  clients = clients._replace(uploaded=counts)
  return clients, clients._replace(
      num_examples=jnp.where(counts, clients.num_examples, 0))


def run_round(server: ServerState, clients: ClientState, batches: Batches,
              rng: Array, *,
              aggregate: Callable[[ServerState, ClientState], Made],
              arrived: Array | None = None, **training: Any
              ) -> tuple[Made, ClientState, Metrics]:
  """Runs a round: `train_cohort`, `uploads`, and the aggregation.

  Every federation runs this function. If a cohort trains in slices, it runs
  once for each slice. `aggregate` then adds the slice's uploads to the sums of
  the slices before, and the server's aggregation follows after the last slice.

  Args:
    server: the server.
    clients: the cohort, or a slice of it, stacked [M, ...].
    batches: the batches of these clients, stacked [M, ...].
    rng: the run's key.
    aggregate: (server, clients) -> the server after the round, or the sums of a
      slice's uploads.
    arrived: [M] bool, as for `uploads`.
    **training: the keyword arguments of `train_cohort`.

  Returns:
    The result of `aggregate`, the clients, and their metrics [M]: those of
    `train_cohort`, and 'arrived', bool.
  """
  clients, metrics = train_cohort(server, clients, batches, rng, **training)
  clients, seen = uploads(clients, arrived, metrics['sound'])
  if arrived is None:
    arrived = jnp.ones(clients.num_examples.shape, bool)
  return aggregate(server, seen), clients, metrics | {'arrived': arrived}
