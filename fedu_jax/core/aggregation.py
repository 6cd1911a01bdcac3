"""What the server makes of the uploads. Each aggregation is chosen by name.

An aggregation is a function `(server, clients) -> server`, where clients are
stacked [M, ...]. It reads the online networks, and `num_examples`: where this
is 0, an upload was lost, or there is no such client, and it must not count. A
record `method.Aggregation` says so if the function reads something else of the
clients, or if the server must remember something.

An aggregation that needs only sums over clients takes them from its keyword
argument `add`, and then runs on many devices, each of which has some of the
clients. For any other, all uploads are gathered first.
"""

from collections.abc import Callable, Sequence

import jax

from fedu_jax.core.method import Aggregation
from fedu_jax.core.state import Array, ClientState, Online, PyTree, ServerState
from fedu_jax.core import trees

Sum = tuple[PyTree, Array]  # a weighted sum, and the sum of the weights
# (stacked trees, weights [M]) -> their sum
Add = Callable[[PyTree, Array], Sum]


def aggregate(server: ServerState, clients: ClientState, *,
              add: Add = trees.weighted_sum) -> ServerState:
  """Averages the online networks, weighted by data size (FedAvg).

  Encoder, projector and predictor, and the BatchNorm statistics of all three,
  as EasyFL's `federated_averaging`; summed in the order of the clients.

  Args:
    server: the server before the round.
    clients: the trained clients [M, ...]; num_examples 0 leaves one out. If it
      is 0 for all, the server keeps its network.
    add: how clients are summed.

  Returns:
    The server after the round.
  """
  sums = add(clients.online, clients.num_examples)
  return server._replace(online=trees.mean(sums, server.online),
                         round=server.round + 1)


def _upload_target(client: ClientState, cohort: int) -> Online:
  """What a client of `fedavg_target` sends."""
  del cohort
  return client.online._replace(encoder=client.target)


def fedavg_target(server: ServerState, clients: ClientState, *,
                  add: Add = trees.weighted_sum) -> ServerState:
  """Averages the target encoders in place of the online ones (FedU's ablation).

  The predictors are averaged as ever. A client that trains for the first time
  begins with the mean of the targets, as all do. In the released code one that
  joins after the second round loads the server's whole model, and so begins
  with the mean of the online encoders. Arguments as in `aggregate`.
  """
  uploads = _upload_target(clients, len(clients.num_examples))
  return aggregate(server, clients._replace(online=uploads), add=add)


def ldawa(server: ServerState, clients: ClientState, *,
          add: Add = trees.weighted_sum) -> ServerState:
  """L-DAWA: a client's layer counts by its cosine with the server's last.

  Each array of parameters is scaled by that cosine, at most 1, before the mean
  over clients, which is not weighted by data size nor divided by the sum of
  cosines (Rehman et al. 2023 and their released code, main_CIFAR10_LDAWA.py).
  BatchNorm's statistics are averaged as they are. The released code means them
  to be, says a comment, and scales them too; and it begins with three rounds of
  FedAvg. Arguments as in `aggregate`.
  """
  def scaled(theirs):
    return Online(*(x._replace(
        params=trees.scaled_by_cosine(x.params, ours.params))
        for x, ours in zip(theirs, server.online)))
  weights = (clients.num_examples > 0).astype(clients.num_examples.dtype)
  return aggregate(server, clients._replace(
      online=jax.vmap(scaled)(clients.online), num_examples=weights), add=add)


def collect(aggregation: Callable[..., ServerState], server: ServerState,
            clients: ClientState, start: Sequence[Sum] = (), *,
            add: Callable[..., Sum] = trees.weighted_sum) -> tuple[Sum, ...]:
  """Takes the sums that an aggregation asks for over a part of a cohort.

  Args:
    aggregation: one that has an argument `add`.
    server: the server before the round.
    clients: the part, stacked.
    start: what this returned for the parts before; none if it is the first.
    add: as `trees.weighted_sum`.

  Returns:
    The sums over all parts so far, in the order in which they are asked for.
  """
  before = list(start)
  found: list[Sum] = []

  def record(rows, weights):
    found.append(add(rows, weights,
                     start=before[len(found)] if before else None))
    return found[-1]
  aggregation(server, clients, add=record)
  return tuple(found)


def conclude(aggregation: Callable[..., ServerState], server: ServerState,
             one: ClientState, sums: Sequence[Sum]) -> ServerState:
  """Aggregates a cohort of which `collect` has taken the sums.

  Args:
    aggregation: the same.
    server: the server before the round.
    one: any clients, stacked, for their shapes alone.
    sums: over the whole cohort.
  """
  left = iter(sums)
  return aggregation(server, one, add=lambda rows, weights: next(left))


fedavg = aggregate  # the name that papers and configs use

# config.aggregation.name -> a function or a record. Those of whole methods are
# in `fedu_jax.learners.METHODS`.
AGGREGATIONS: dict[str, Aggregation | Callable[..., ServerState]] = {
    'fedavg': fedavg,
    'fedavg_target': Aggregation(fedavg_target, upload=_upload_target),
    'ldawa': ldawa,
}
