"""Update rules: how a client combines the download with its own networks.

The config names one. A rule is a function `(client, server) -> client`, for ONE
client, with its choices as keyword arguments. A client that has never trained
takes the server's encoder and predictor, and its target becomes that encoder. A
rule that reads more of the server than the online network, or keeps a memory of
the client, is a record `method.UpdateRule`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from fedu_jax.core import trees
from fedu_jax.core.method import UpdateRule
from fedu_jax.core.state import (
  Array,
  ClientState,
  Online,
  ServerState,
  Variables,
)

# The client's encoders that are replaced by the server's. FedU replaces the
# online encoder; the others are the ablation of its paper.
UPDATES = ('online', 'target', 'both', 'neither')


def _download(client: ClientState, server: ServerState, online: Online,
              target: Variables | None = None,
              new: Array | bool = False) -> ClientState:
  """Sets a client's networks; one that never trained takes the server's.

  Args:
    client: one client.
    server: the server at the time of the download.
    online: the online network for a client that has trained.
    target: the target for such a client; None keeps its own.
    new: [] bool; True treats the client as one that has never trained.
  """
  new = (client.last_round < 0) | new
  own = client.target if target is None else target
  return client._replace(
      online=trees.where(new, server.online, online),
      target=trees.where(new, server.online.encoder, own))


def _update(client: ClientState, server: ServerState, predictor: Variables,
            updates: str) -> ClientState:
  """Replaces the chosen encoders by the server's, and sets the predictor."""
  if updates not in UPDATES:
    raise ValueError(f'updates must be one of {UPDATES}, not {updates!r}')
  ours = server.online.encoder
  encoder = ours if updates in ('online', 'both') else client.online.encoder
  target = ours if updates in ('target', 'both') else client.target
  return _download(client, server, Online(encoder, predictor), target)


def dapu(client: ClientState, server: ServerState, *, threshold: float,
         updates: str = 'online') -> ClientState:
  """FedU's divergence-aware predictor update (DAPU).

  The encoder becomes the server's. The predictor becomes the server's if the
  client's divergence is strictly less than `threshold`, and stays the client's
  own otherwise (Zhuang et al. 2021; the strict comparison and 0.4 are the
  released code's). The divergence is the drift of the encoder in the client's
  last local training.

  Args:
    client: one client.
    server: the server at the time of the download.
    threshold: the limit of the divergence.
    updates: the encoders that become the server's: 'online', 'target', 'both'
      or 'neither'.

  Returns:
    The client at the start of its local training.

  Raises:
    ValueError: `updates` is none of these.
  """
  predictor = trees.where(client.divergence < threshold,
                          server.online.predictor, client.online.predictor)
  return _update(client, server, predictor, updates)


def global_predictor(client: ClientState, server: ServerState, *,
                     updates: str = 'online') -> ClientState:
  """FedBYOL: always the server's encoder and the server's predictor."""
  return _update(client, server, server.online.predictor, updates)


def local_predictor(client: ClientState, server: ServerState, *,
                    updates: str = 'online') -> ClientState:
  """Always the server's encoder and the client's own predictor."""
  return _update(client, server, client.online.predictor, updates)


class FedEMAMemory(NamedTuple):
  """A client's memory for FedEMA with an automatic scale."""
  scale: Array | float  # [] f32; 0 = not set yet


def fedema(client: ClientState, server: ServerState, *, scale: float | Array,
           reset_missed: bool = True) -> ClientState:
  """FedEMA with a constant scale (Zhuang et al. 2022, algorithm 1).

  The parameters of encoder and predictor become mu * local + (1 - mu) * global,
  with mu = min(scale * divergence, 1). As in the released code, the divergence
  is the drift in the last local training, the encoder's BatchNorm statistics
  become the server's, and the predictor's are the client's if mu > 0.5 and else
  the server's.

  Args:
    client: one client.
    server: the server at the time of the download.
    scale: the factor of the divergence.
    reset_missed: whether a client takes the server's networks, its target too,
      if it did not train in the last round or its upload was lost (algorithm
      1, lines 13 and 14).

  Returns:
    The client at the start of its local training.
  """
  mu = jnp.minimum(scale * client.divergence, 1)
  own, ours = client.online, server.online
  encoder = ours.encoder._replace(params=trees.blend(
      own.encoder.params, ours.encoder.params, mu))
  predictor = ours.predictor._replace(
      params=trees.blend(own.predictor.params, ours.predictor.params, mu),
      batch_stats=trees.where(mu > 0.5, own.predictor.batch_stats,
                              ours.predictor.batch_stats))
  missed = reset_missed and (
      (client.last_round < server.round - 1) | ~client.uploaded)
  return _download(client, server, Online(encoder, predictor), new=missed)


def fedema_auto(client: ClientState, server: ServerState, *, tau: float,
                reset_missed: bool = True) -> ClientState:
  """FedEMA with a scale for each client: tau / its first divergence.

  It needs `init_clients(..., memory=Memory(rule=FedEMAMemory(0.)))`.
  """
  trained = client.last_round >= 0
  moved = client.divergence > 0  # the scale needs a divergence above 0
  first = jnp.where(moved, tau / jnp.where(moved, client.divergence, 1), 0)
  known = client.memory.rule.scale
  scale = jnp.where(known > 0, known, first)
  client = fedema(client, server, scale=scale, reset_missed=reset_missed)
  return client._replace(memory=client.memory._replace(
      rule=FedEMAMemory(jnp.where(trained, scale, 0))))


# config.rule.name -> a function or a record. Those of whole methods are in
# `fedu_jax.learners.METHODS`.
RULES: dict[str, UpdateRule | Callable[..., ClientState]] = {
    'dapu': dapu,
    'global_predictor': global_predictor,
    'local_predictor': local_predictor,
    'fedema': fedema,
    'fedema_auto': UpdateRule(
        fedema_auto, memory=lambda online: FedEMAMemory(0.)),
}
