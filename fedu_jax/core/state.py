"""The states of a client and of a server, and the images of a round.

Every state is a NamedTuple that holds only arrays. JAX can therefore stack,
donate, shard and checkpoint it. Shape letters used in the whole package:
K clients, M clients of a cohort, N examples, S steps, B batch size, D features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any
Metrics = dict[str, Array]  # flat names: 'loss', 'divergence', ...


class Variables(NamedTuple):
  """One network: trained parameters and BatchNorm's running statistics."""
  params: PyTree
  batch_stats: PyTree


class Online(NamedTuple):
  """The online network: what a client uploads and the server averages."""
  encoder: Variables  # backbone and projector
  predictor: Variables


class Memory(NamedTuple):
  """What a learner or an update rule keeps of a client between rounds."""
  learner: PyTree = ()
  rule: PyTree = ()


class ClientState(NamedTuple):
  """What a client keeps between rounds.

  The states of K clients are stacked: each leaf gains a leading axis [K].
  """
  online: Online
  target: Variables
  num_examples: Array  # [] f32; the client's weight in the average
  divergence: Array  # [] f32; the encoder's drift in the last local training
  last_round: Array  # [] i32; the last round it trained in, -1 for none
  uploaded: Array  # [] bool; the server received its last upload
  memory: Memory = Memory()


class ServerState(NamedTuple):
  """What the server keeps between rounds."""
  online: Online
  round: Array  # [] i32; number of completed rounds
  memory: PyTree = ()  # what the aggregation keeps


class Labelled(NamedTuple):
  """Images with labels, for the supervised upper bound alone."""
  images: Any  # [N, H, W, C] u8 or u16, on the host or the device
  labels: Any  # [N] i32


class ClientArrays(NamedTuple):
  """One client's images, padded to N, the number of the largest client."""
  images: PyTree  # [N, H, W, C] u8 or u16, or Labelled
  num_examples: Array  # [] i32; the rows after so many are padding


class Batches(NamedTuple):
  """All images of one client, and which of them form each batch of a round.

  Batch s is `images[index[s]]`. No batch is stored as an array of its own.
  """
  images: PyTree  # [N, H, W, C] u8 or u16, or Labelled
  index: Array  # type: ignore[assignment]  # [S, B] i32, rows of `images`
  mask: Array | None  # [S] bool, the steps that are done; None: all of them
  round: Array  # [] i32


class Learner(NamedTuple):
  """An SSL method as three functions that share a state of the method's own."""
  init: Callable[[ClientState, Array], PyTree]  # (client, round) -> state
  # (state, images [B, H, W, C], rng) -> (state, metrics)
  step: Callable[..., tuple[PyTree, Metrics]]
  # (client, state) -> client, after the last step
  final: Callable[[ClientState, PyTree], ClientState]
  # (online, rng, images [1, H, W, C] f32) -> a client's first memory.learner
  memory: Callable[[Online, Array, Array], PyTree] = lambda *_: ()
