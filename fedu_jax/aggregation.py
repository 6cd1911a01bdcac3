"""What the server makes of the uploads. Each function is chosen by name.

An aggregation is `(server, clients) -> server`, where clients are stacked
[M, ...]. The fields that it reads are what a client uploads.
"""

import jax.numpy as jnp

from fedu_jax import trees
from fedu_jax.state import ClientState, Online, ServerState


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


fedavg = aggregate  # the name that papers and configs use
