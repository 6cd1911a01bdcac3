"""What the server makes of the uploads. Each function is chosen by name.

An aggregation is `(server, clients) -> server`, where clients are stacked
[M, ...]. The fields that it reads are what a client uploads.
"""

from typing import NamedTuple

import jax.numpy as jnp

from fedu_jax import trees
from fedu_jax.state import Array, ClientState, Online, ServerState


def aggregate(server: ServerState, clients: ClientState) -> ServerState:
  """Averages the online networks, weighted by data size (FedAvg).

  Encoder, projector and predictor, and the BatchNorm statistics of all three,
  as EasyFL's `federated_averaging`; summed in the order of the clients.

  Args:
    server: the server before the round.
    clients: the trained clients [M, ...]; num_examples 0 leaves one out. If it
      is 0 for all, the server keeps its network.

  Returns:
    The server after the round.
  """
  weights = clients.num_examples
  mean = trees.weighted_mean(clients.online, weights)
  online = trees.where(jnp.any(weights > 0), mean, server.online)
  return server._replace(online=online, round=server.round + 1)


def fedavg_target(server: ServerState, clients: ClientState) -> ServerState:
  """Averages the target encoders in place of the online ones (FedU's ablation).

  The predictors are averaged as ever. Arguments as in `aggregate`.
  """
  uploads = clients.online._replace(encoder=clients.target)
  return aggregate(server, clients._replace(online=uploads))


def ldawa(server: ServerState, clients: ClientState) -> ServerState:
  """L-DAWA: a client's layer counts by its cosine with the server's last.

  Each array of parameters is scaled by that cosine, at most 1, before the mean
  over clients, which is not weighted by data size nor divided by the sum of
  cosines (Rehman et al. 2023 and their released code). BatchNorm's statistics
  are averaged as they are. Arguments as in `aggregate`.
  """
  weights = (clients.num_examples > 0).astype(clients.num_examples.dtype)

  def mean(ours, theirs):
    return ours._replace(
        params=trees.weighted_cosine_mean(theirs.params, ours.params, weights),
        batch_stats=trees.weighted_mean(theirs.batch_stats, weights))
  online = Online(mean(server.online.encoder, clients.online.encoder),
                  mean(server.online.predictor, clients.online.predictor))
  online = trees.where(jnp.any(weights > 0), online, server.online)
  return server._replace(online=online, round=server.round + 1)


def fedca(server: ServerState, clients: ClientState) -> ServerState:
  """FedAvg, and FedCA's dictionary of what the clients' samples look like.

  The newest N / M keys of each client go before the server's entries, and the
  oldest fall out. Arguments as in `aggregate`; the clients' learner is `fedca`.
  """
  keys = clients.memory.learner.keys  # [M, N, D]
  size, share = keys.shape[1], keys.shape[1] // len(keys)
  newest = keys[:, :share]
  left_out = (clients.num_examples == 0).reshape(-1, 1, 1)
  kept = server.memory[:len(keys) * share].reshape(newest.shape)
  newest = jnp.where(left_out, kept, newest).reshape(-1, keys.shape[-1])
  memory = jnp.concatenate([newest, server.memory])[:size]
  return aggregate(server, clients)._replace(memory=memory)


# What the server holds before the first round, made of all clients.
fedca.memory = (  # type: ignore[attr-defined]
    lambda clients: clients.memory.learner.dictionary[0])


class Moments(NamedTuple):
  """What FedSC's server knows of the last cohort's embeddings."""
  mean: Array  # [D, D]
  num_examples: Array  # [] f32, of the clients that are in it


def fedsc(server: ServerState, clients: ClientState) -> ServerState:
  """FedAvg, and the mean of the clients' second moments.

  Arguments as in `aggregate`; the clients' learner is `fedsc`.
  """
  weights = clients.num_examples
  memory = Moments(trees.weighted_mean(clients.memory.learner.own, weights),
                   weights.sum())
  memory = trees.where(jnp.any(weights > 0), memory, server.memory)
  return aggregate(server, clients)._replace(memory=memory)


fedsc.memory = lambda clients: Moments(  # type: ignore[attr-defined]
    clients.memory.learner.own[0], jnp.float32(0))


fedavg = aggregate  # the name that papers and configs use
