"""What a client makes of the download. Each rule is chosen by name.

A rule is a function `(client, server) -> client`, for ONE client, with its
choices as keyword arguments. A client that has never trained has nothing of its
own and takes everything, its target too. A record `method.UpdateRule` says so
if the function reads more of the server than the online network, or if a client
must remember something.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from fedu_jax.core.method import UpdateRule
from fedu_jax.core.state import (
    Array, ClientState, Online, ServerState, Variables)
from fedu_jax.core import trees

# Which encoder becomes the global one. FedU updates the online encoder; the
# others are the ablation of its paper.
UPDATES = ('online', 'target', 'both', 'neither')


def _download(client: ClientState, server: ServerState, online: Online,
              target: Variables | None = None,
              new: Array | bool = False) -> ClientState:
  """Gives `online` to a client that has trained, the global net to others.

  Args:
    client: one client.
    server: the server as it is when the client downloads.
    online: for a client that has something of its own.
    target: likewise; None leaves it the client's.
    new: also treat it as a client that has never trained.
  """
  new = (client.last_round < 0) | new
  own = client.target if target is None else target
  return client._replace(
      online=trees.where(new, server.online, online),
      target=trees.where(new, server.online.encoder, own))


def _update(client: ClientState, server: ServerState, predictor: Variables,
            updates: str) -> ClientState:
  """Gives the chosen encoders the global one's values, and a predictor."""
  if updates not in UPDATES:
    raise ValueError(f'updates must be one of {UPDATES}, not {updates!r}')
  ours = server.online.encoder
  encoder = ours if updates in ('online', 'both') else client.online.encoder
  target = ours if updates in ('target', 'both') else client.target
  return _download(client, server, Online(encoder, predictor), target)


def dapu(client: ClientState, server: ServerState, *, threshold: float,
         updates: str = 'online') -> ClientState:
  """FedU's divergence-aware predictor update.

  The encoder becomes the global one. The predictor becomes the global one if
  the encoder drifted by strictly less than `threshold` in the client's last
  local training, and stays the client's own otherwise (Zhuang et al. 2021; the
  strict comparison and 0.4 are the released code's).

  Args:
    client: one client.
    server: the server as it is when the client downloads.
    threshold: of the divergence.
    updates: which encoder becomes the global one: 'online', 'target', 'both' or
      'neither'.

  Raises:
    ValueError: `updates` is none of these.
  """
  predictor = trees.where(client.divergence < threshold,
                          server.online.predictor, client.online.predictor)
  return _update(client, server, predictor, updates)


def global_predictor(client: ClientState, server: ServerState, *,
                     updates: str = 'online') -> ClientState:
  """FedBYOL: the global encoder and the global predictor, always."""
  return _update(client, server, server.online.predictor, updates)


def local_predictor(client: ClientState, server: ServerState, *,
                    updates: str = 'online') -> ClientState:
  """The global encoder with the client's own predictor, always."""
  return _update(client, server, client.online.predictor, updates)


class FedEMAMemory(NamedTuple):
  """What auto-scaled FedEMA remembers of a client."""
  scale: Array | float  # [] f32; 0 = not set yet


def fedema(client: ClientState, server: ServerState, *, scale: float | Array,
           reset_missed: bool = True) -> ClientState:
  """FedEMA with a constant scale (Zhuang et al. 2022, algorithm 1).

  Both networks become mu * local + (1 - mu) * global, with
  mu = min(scale * divergence, 1), parameters only. As in the released code the
  divergence is the drift of the last local training; the encoder's statistics
  come from the server, the predictor's from whichever side mu favours
  (the client's where mu > 0.5).

  Args:
    client: one client.
    server: the server as it is when the client downloads.
    scale: of the divergence.
    reset_missed: a client that did not train in the last round, or whose upload
      was lost, takes the global networks, its target too (algorithm 1, lines 13
      and 14).
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
  """FedEMA whose scale is tau / the client's first divergence, set once.

  Needs `init_clients(..., memory=Memory(rule=FedEMAMemory(0.)))`.
  """
  trained = client.last_round >= 0
  moved = client.divergence > 0  # else there is nothing to scale by yet
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
