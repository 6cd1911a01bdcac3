"""A round: download, local training and the mean, for many clients at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedu_jax.core.state import (
    Array, Batches, ClientState, Metrics, PyTree, ServerState)
from fedu_jax.core import trees

EXECUTIONS = ('auto', 'vmap', 'map')


def map_clients(fn: Callable[..., PyTree], *,
                execution: str = 'auto') -> Callable[..., PyTree]:
  """Lifts a function of one client to stacked clients [K, ...].

  Args:
    fn: a function of one client's arguments.
    execution: 'vmap', all clients at once; 'map', one after the other in one
      program; 'auto', 'map'. vmap turns each convolution into a grouped one,
      measured 2.5 to 2.7 times slower on CPU at width 16 and alike at width 8,
      and reported slow in the backward pass on GPU (github.com/jax-ml/jax/
      issues/13800; not measured by us). It holds the working memory of all
      clients at once, and a skipped step costs what a step does.

  Returns:
    The function of stacked arguments; both executions give the same answer up
    to the rounding of differently ordered sums.
  """
  if execution not in EXECUTIONS:
    raise ValueError(f'execution must be one of {EXECUTIONS}, '
                     f'not {execution!r}')
  if execution == 'vmap':
    return jax.vmap(fn)
  return lambda *args: jax.lax.map(lambda row: fn(*row), args)


def client_rngs(rng: Array, round: Array, ids: Array) -> Array:
  """One key a client, which depends on the round and the client's id alone."""
  rng = jax.random.fold_in(rng, round)
  return jax.vmap(lambda i: jax.random.fold_in(rng, i))(ids)


def train_cohort(server: ServerState, clients: ClientState, batches: Batches,
                 rng: Array, *,
                 local_update: Callable[..., tuple[ClientState, Metrics]],
                 rule: Callable[[ClientState, ServerState], ClientState],
                 execution: str = 'auto', ids: Array | None = None
                 ) -> tuple[ClientState, Metrics]:
  """Hands the server's network to a cohort, or a part of one, and trains it.

  The rule is applied on download, as in the reference: to a client's state as
  its last training left it, however long ago, and the server as it is now.

  Args:
    server: the server.
    clients: the cohort, stacked [M, ...].
    batches: the cohort's work orders, stacked [M, ...].
    rng: the run's key.
    local_update: (client, batches, rng) -> (client, metrics), for one client.
    rule: (client, server) -> client, for one client.
    execution: how clients share the device, see `map_clients`.
    ids: [M] i32, who they are; None means 0 to M - 1.

  Returns:
    The cohort and its metrics [M]: what local training reports;
    'global_predictor', bool: whether the rule gave this client exactly the
    server's predictor, which for dapu and clients that have trained before is
    its decision; and 'sound', bool: whether what came of its training is, see
    `trees.sound`. A client for whom it is not is `returned`.
  """
  if ids is None:
    ids = jnp.arange(len(clients.num_examples))

  def download(client):
    client = rule(client, server)
    return client, trees.equal(client.online.predictor, server.online.predictor)

  def train(client, batches, rng):
    trained, metrics = local_update(client, batches, rng)
    # Of its numbers, the divergence is a metric, if it has been measured.
    sound = trees.sound((trained.online, trained.target, trained.memory,
                         trained.num_examples, metrics))
    # Here and not on the stacked clients, of whom it would make a copy.
    trained = trees.where(sound, trained, returned(
        trained._replace(memory=client.memory), server))
    return trained, metrics | {'sound': sound}
  # Elementwise work: vmap, whatever the execution of the training.
  clients, took = jax.vmap(download)(clients)
  clients, metrics = map_clients(train, execution=execution)(
      clients, batches, client_rngs(rng, server.round, ids))
  return clients, metrics | {'global_predictor': took}


def returned(client: ClientState, server: ServerState) -> ClientState:
  """Returns a client whose numbers went wrong to the global model.

  It has the server's networks, its target too, from which it has not drifted.
  The server knows nothing of it, so a rule treats it as one whose upload was
  lost. What it remembers stays, but for arrays that are not sound: those become
  zero, which all of ours take for nothing remembered.

  Args:
    client: one client, with the memory of before.
    server: the server that it downloaded from.
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
  """Loses some uploads, and leaves those out that are not sound.

  A client whose upload is lost keeps what it learnt. It weighs nothing, as does
  one whose numbers went wrong.

  Args:
    clients: a trained cohort, stacked [M, ...].
    arrived: [M] bool, whose upload reaches the server; None means everyone's.
    sound: [M] bool, as `train_cohort` reports it.

  Returns:
    The cohort, who know it; and what the server sees of them.
  """
  counts = sound if arrived is None else arrived & sound
  clients = clients._replace(uploaded=counts)
  return clients, clients._replace(
      num_examples=jnp.where(counts, clients.num_examples, 0))


def run_round(server: ServerState, clients: ClientState, batches: Batches,
              rng: Array, *,
              aggregate: Callable[[ServerState, ClientState], ServerState],
              arrived: Array | None = None, **training: Any
              ) -> tuple[ServerState, ClientState, Metrics]:
  """A whole round: `train_cohort`, then the mean of what arrives.

  Args:
    server: the server.
    clients: the cohort, stacked [M, ...].
    batches: the cohort's work orders, stacked [M, ...].
    rng: the run's key.
    aggregate: (server, clients) -> server.
    arrived: as for `uploads`.
    **training: the keyword arguments of `train_cohort`.

  Returns:
    The server, the cohort, and its metrics [M]: those of `train_cohort`, and
    'arrived', bool.
  """
  clients, metrics = train_cohort(server, clients, batches, rng, **training)
  clients, seen = uploads(clients, arrived, metrics['sound'])
  if arrived is None:
    arrived = jnp.ones(clients.num_examples.shape, bool)
  return aggregate(server, seen), clients, metrics | {'arrived': arrived}
