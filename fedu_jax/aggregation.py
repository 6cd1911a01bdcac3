"""What the server makes of the uploads. Each function is chosen by name.

An aggregation is `(server, clients) -> server`, where clients are stacked
[M, ...]. The fields that it reads are what a client uploads.
"""

import jax.numpy as jnp

from fedu_jax import trees
from fedu_jax.state import ClientState, ServerState


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


fedavg = aggregate  # the name that papers and configs use
