"""What a client makes of the download. Each rule is chosen by name.

A rule is `(client, server) -> client`, for ONE client, with its choices as
keyword arguments. The target always stays the client's own. A client that has
never trained has nothing of its own and takes everything, its target too. A
rule whose clients must remember something says what in its attribute `memory`.
"""

from typing import NamedTuple

import jax.numpy as jnp

from fedu_jax import trees
from fedu_jax.state import Array, ClientState, Online, ServerState


def _download(client: ClientState, server: ServerState,
              online: Online) -> ClientState:
  """Gives `online` to a client that has trained, the global net to others."""
  new = client.last_round < 0
  return client._replace(
      online=trees.where(new, server.online, online),
      target=trees.where(new, server.online.encoder, client.target))


def dapu(client: ClientState, server: ServerState, *,
         threshold: float) -> ClientState:
  """FedU's divergence-aware predictor update.

  The encoder becomes the global one. The predictor becomes the global one if
  the encoder drifted by strictly less than `threshold` in the client's last
  local training, and stays the client's own otherwise (Zhuang et al. 2021; the
  strict comparison and 0.4 are the released code's).
  """
  predictor = trees.where(client.divergence < threshold,
                          server.online.predictor, client.online.predictor)
  return _download(client, server, Online(server.online.encoder, predictor))


def global_predictor(client: ClientState, server: ServerState) -> ClientState:
  """FedBYOL: the global encoder and the global predictor, always."""
  return _download(client, server, server.online)


def local_predictor(client: ClientState, server: ServerState) -> ClientState:
  """The global encoder with the client's own predictor, always."""
  return _download(client, server,
                   server.online._replace(predictor=client.online.predictor))


class FedEMAMemory(NamedTuple):
  """What auto-scaled FedEMA remembers of a client."""
  scale: Array | float  # [] f32; 0 = not set yet


def fedema(client: ClientState, server: ServerState, *,
           scale: float | Array) -> ClientState:
  """FedEMA with a constant scale (Zhuang et al. 2022, algorithm 1).

  Both networks become mu * local + (1 - mu) * global, with
  mu = min(scale * divergence, 1), parameters only. As in the released code the
  divergence is the drift of the last local training; the encoder's statistics
  come from the server, the predictor's from whichever side mu favours
  (the client's where mu > 0.5). A client that missed rounds is treated like any
  other; algorithm 1 would reset it to the global network.
  """
  mu = jnp.minimum(scale * client.divergence, 1)
  own, ours = client.online, server.online
  encoder = ours.encoder._replace(params=trees.blend(
      own.encoder.params, ours.encoder.params, mu))
  predictor = ours.predictor._replace(
      params=trees.blend(own.predictor.params, ours.predictor.params, mu),
      batch_stats=trees.where(mu > 0.5, own.predictor.batch_stats,
                              ours.predictor.batch_stats))
  return _download(client, server, Online(encoder, predictor))


def fedema_auto(client: ClientState, server: ServerState, *,
                tau: float) -> ClientState:
  """FedEMA whose scale is tau / the client's first divergence, set once.

  Needs `init_clients(..., memory=fedema_auto.memory)`.
  """
  trained = client.last_round >= 0
  moved = client.divergence > 0  # else there is nothing to scale by yet
  first = jnp.where(moved, tau / jnp.where(moved, client.divergence, 1), 0)
  scale = jnp.where(client.memory.scale > 0, client.memory.scale, first)
  client = fedema(client, server, scale=scale)
  return client._replace(memory=FedEMAMemory(jnp.where(trained, scale, 0)))


# What `init_clients` must give a client for it to remember.
fedema_auto.memory = FedEMAMemory(scale=0.)  # type: ignore[attr-defined]
