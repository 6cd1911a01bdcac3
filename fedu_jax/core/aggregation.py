"""What the server makes of the uploads. Each function is chosen by name.

An aggregation is `(server, clients) -> server`, where clients are stacked
[M, ...]. It reads the online networks, or what it declares as its `upload` (see
`traffic`). One whose server must remember something declares as its `memory`
what that is before the first round: `(clients) -> tree`. One that needs
only sums over clients takes them from its keyword argument `add`, and then runs
on many devices, each of which has some of the clients; to any other, all
uploads are gathered first. Where `num_examples` is 0, an upload was lost, or
there is no such client: it must not count.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedu_jax.core import communication
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


@communication.declares(upload=_upload_target)
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


def _upload_keys(client: ClientState, cohort: int) -> tuple[Online, PyTree,
                                                            Array]:
  """What a client of `fedca` sends: of its keys those that the server keeps."""
  learner = client.memory.learner
  share = len(learner.keys) // cohort
  if not share:
    raise ValueError(f'a dictionary of {len(learner.keys)} entries has none '
                     f'for each of {cohort} clients: raise queue_size')
  return client.online, learner.keys[:share], learner.tag


@communication.declares(
    upload=_upload_keys,
    memory=lambda clients: jax.tree.map(
        lambda x: x[0], clients.memory.learner.dictionary))
def fedca(server: ServerState, clients: ClientState) -> ServerState:
  """FedAvg, and FedCA's dictionary of what the clients' samples look like.

  The newest N / M keys of each client go before the server's entries, and the
  oldest fall out. Arguments as in `aggregate`; the clients' learner is `fedca`.

  Raises:
    ValueError: there are more clients than entries.
  """
  dictionary = clients.memory.learner.dictionary
  cohort, size = dictionary.entries.shape[:2]
  _, keys, tags = jax.vmap(lambda x: _upload_keys(x, cohort))(clients)
  share = keys.shape[1]
  uploads = dictionary._replace(
      entries=keys, owners=jnp.repeat(tags.reshape(-1, 1), share, axis=1))
  left_out = clients.num_examples == 0

  def enqueue(known, uploaded):
    """Entries or owners, [N, ...], behind those of [M, share, ...]."""
    kept = known[:cohort * share].reshape(uploaded.shape)
    out = left_out.reshape(-1, *(1,) * known.ndim)
    newest = jnp.where(out, kept, uploaded).reshape(-1, *known.shape[1:])
    return jnp.where(left_out.all(), known,
                     jnp.concatenate([newest, known])[:size])
  memory = jax.tree.map(enqueue, server.memory, uploads)
  return aggregate(server, clients)._replace(memory=memory)


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


class Moments(NamedTuple):
  """What FedSC's server knows of the last cohort's embeddings."""
  mean: Array  # [D, D]
  num_examples: Array  # [] f32, of the clients that are in it


def _upload_moments(client: ClientState, cohort: int) -> tuple[Online, Array]:
  """What a client of `fedsc` sends."""
  del cohort
  return client.online, client.memory.learner.own


@communication.declares(
    upload=_upload_moments,
    memory=lambda clients: Moments(
        clients.memory.learner.own[0], jnp.float32(0)))
def fedsc(server: ServerState, clients: ClientState, *,
          add: Add = trees.weighted_sum) -> ServerState:
  """FedAvg, and the mean of the clients' second moments.

  Arguments as in `aggregate`; the clients' learner is `fedsc`.
  """
  sums = add(clients.memory.learner.own, clients.num_examples)
  memory = Moments(trees.mean(sums, server.memory.mean), sums[1])
  return aggregate(server, clients, add=add)._replace(memory=memory)


fedavg = aggregate  # the name that papers and configs use
