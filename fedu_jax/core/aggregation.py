"""Aggregations: how the server combines the uploads. The config names one.

An aggregation is a function `(server, clients) -> server`. The clients are
stacked [M, ...]. It reads their online networks and `num_examples`. A row with
num_examples 0 must not count: its upload was lost, or the row is padding. An
aggregation that reads more of the clients, or keeps a memory on the server, is
a record `method.Aggregation`.

An aggregation with a keyword argument `add` computes all sums over clients with
it. Each device then adds its own clients, and only sums are exchanged. For an
aggregation without `add`, each device gets all uploads.
"""

from collections.abc import Callable

import jax

from fedu_jax.core import trees
from fedu_jax.core.method import Aggregation
from fedu_jax.core.state import Array, ClientState, Online, PyTree, ServerState

Sum = tuple[PyTree, Array]  # a weighted sum, and the sum of the weights
# (stacked trees, weights [M]) -> their sum
Add = Callable[[PyTree, Array], Sum]


def aggregate(server: ServerState, clients: ClientState, *,
              add: Add = trees.weighted_sum) -> ServerState:
  """Averages the online networks, weighted by data size (FedAvg).

  It averages encoder, projector and predictor with their BatchNorm statistics,
  as EasyFL's `federated_averaging` does, and adds in the order of the clients.

  Args:
    server: the server before the round.
    clients: the trained clients, [M, ...]. Those with num_examples 0 do not
      count. If no client counts, the server keeps its network.
    add: the weighted sum over clients.

  Returns:
    The server after the round.
  """
  sums = add(clients.online, clients.num_examples)
  return server._replace(online=trees.mean(sums, server.online),
                         round=server.round + 1)


def _upload_target(client: ClientState, cohort: int) -> Online:
  """The upload of `fedavg_target`: the target encoder and the predictor."""
  del cohort
  return client.online._replace(encoder=client.target)


def fedavg_target(server: ServerState, clients: ClientState, *,
                  add: Add = trees.weighted_sum) -> ServerState:
  """Averages the target encoders and not the online ones (FedU's ablation).

  Predictors are averaged as in `aggregate`. The average of the targets becomes
  the server's encoder, which every client downloads, in its first round too. In
  the released code, a client that joins after the second round downloads the
  average of the online encoders. Arguments as in `aggregate`.
  """
  uploads = _upload_target(clients, len(clients.num_examples))
  return aggregate(server, clients._replace(online=uploads), add=add)


def ldawa(server: ServerState, clients: ClientState, *,
          add: Add = trees.weighted_sum) -> ServerState:
  """L-DAWA: averages layers scaled by their cosine with the server's layers.

  Each array of a client's parameters is scaled by its cosine with the server's
  array before the round, at most 1. Then clients are averaged with equal
  weights, and not divided by the sum of cosines (Rehman et al. 2023 and their
  released code, main_CIFAR10_LDAWA.py). BatchNorm's statistics are not scaled.
  The released code says so in a comment, but scales them, and it starts with
  three rounds of FedAvg. Arguments as in `aggregate`.
  """
  def scaled(theirs):
    return Online(*(x._replace(
        params=trees.scaled_by_cosine(x.params, ours.params))
        for x, ours in zip(theirs, server.online)))
  weights = (clients.num_examples > 0).astype(clients.num_examples.dtype)
  return aggregate(server, clients._replace(
      online=jax.vmap(scaled)(clients.online), num_examples=weights), add=add)


fedavg = aggregate  # the name that papers and configs use

# config.aggregation.name -> a function or a record. Those of whole methods are
# in `fedu_jax.learners.METHODS`.
AGGREGATIONS: dict[str, Aggregation | Callable[..., ServerState]] = {
    'fedavg': fedavg,
    'fedavg_target': Aggregation(fedavg_target, upload=_upload_target),
    'ldawa': ldawa,
}
