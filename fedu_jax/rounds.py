"""A round: download, local training and the mean, for many clients at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedu_jax import trees
from fedu_jax.state import (
    Array, Batches, ClientState, Metrics, PyTree, ServerState)

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


def run_round(server: ServerState, clients: ClientState, batches: Batches,
              rng: Array, *,
              local_update: Callable[..., tuple[ClientState, Metrics]],
              aggregate: Callable[[ServerState, ClientState], ServerState],
              rule: Callable[[ClientState, ServerState], ClientState],
              execution: str = 'auto', ids: Array | None = None,
              arrived: Array | None = None
              ) -> tuple[ServerState, ClientState, Metrics]:
  """Hands the server's network to a cohort, trains it, and averages it.

  The rule is applied on download, as in the reference: to a client's state as
  its last training left it, however long ago, and the server as it is now.

  Args:
    server: the server.
    clients: the cohort, stacked [M, ...].
    batches: the cohort's work orders, stacked [M, ...].
    rng: the run's key.
    local_update: (client, batches, rng) -> (client, metrics), for one client.
    aggregate: (server, clients) -> server.
    rule: (client, server) -> client, for one client.
    execution: how clients share the device, see `map_clients`.
    ids: [M] i32, who they are; None means 0 to M - 1.
    arrived: [M] bool, whose upload reaches the server; None means everyone's.
      The others keep what they have learnt, and weigh nothing.

  Returns:
    The server, the cohort, and its metrics [M]: what local training reports,
    'arrived', and 'global_predictor', bool: DAPU's decision, or for any rule
    whether it would now give this client exactly the server's predictor.
  """
  if ids is None:
    ids = jnp.arange(len(clients.num_examples))
  # Elementwise work: vmap, whatever the execution of the training.
  clients = jax.vmap(lambda client: rule(client, server))(clients)
  clients, metrics = map_clients(local_update, execution=execution)(
      clients, batches, client_rngs(rng, server.round, ids))
  if arrived is None:
    arrived = jnp.ones(ids.shape, bool)
    server = aggregate(server, clients)
  else:
    clients = clients._replace(uploaded=arrived)
    server = aggregate(server, clients._replace(
        num_examples=jnp.where(arrived, clients.num_examples, 0)))

  def decide(client):
    online = rule(client, server).online
    return trees.equal(online.predictor, server.online.predictor)
  return server, clients, metrics | {
      'global_predictor': jax.vmap(decide)(clients), 'arrived': arrived}
