"""The nouns: what a client, a server and a batch of work are made of.

Every state is a NamedTuple of arrays and nothing else, so it stacks, donates,
shards, checkpoints and prints. Shape letters used throughout the package:
K clients, M cohort, N examples, S steps, B batch, D features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any
Metrics = dict[str, Array]  # flat names: 'loss', 'divergence', ...


class Variables(NamedTuple):
  """What one network learns (params) and what it tracks (batch_stats)."""
  params: PyTree
  batch_stats: PyTree


class Online(NamedTuple):
  """The online network: what a client uploads and the server averages."""
  encoder: Variables  # backbone and projector
  predictor: Variables


class StepState(NamedTuple):
  """What lives for one batch: the carry of BYOL's scan over steps."""
  online: Online
  target: Variables  # an encoder; a target has no predictor
  opt_state: PyTree
  round: Array  # [] i32; sets the learning rate
  first: Array  # [] bool; the client's first round (see byol's first_target)


class Memory(NamedTuple):
  """What a swapped-in learner or rule must remember of a client."""
  learner: PyTree = ()
  rule: PyTree = ()


class ClientState(NamedTuple):
  """What a client keeps between rounds; stacked, every leaf gains [K]."""
  online: Online
  target: Variables
  num_examples: Array  # [] f32; its weight in the mean
  divergence: Array  # [] f32; the encoder's drift in its last local training
  last_round: Array  # [] i32; -1 = never trained
  uploaded: Array  # [] bool; whether the server has its last training
  memory: Memory = Memory()


class ServerState(NamedTuple):
  """What the server keeps for the run."""
  online: Online
  round: Array  # [] i32; rounds completed
  memory: PyTree = ()


class Labelled(NamedTuple):
  """Images for the supervised upper bound; no SSL method sees labels."""
  images: Any  # [N, H, W, C] u8, on the host or the device
  labels: Any  # [N] i32


class ClientArrays(NamedTuple):
  """One client's images, padded to the largest client's count."""
  images: PyTree  # [N, H, W, C] u8, or Labelled
  num_examples: Array  # [] i32; rows from here on are padding


class Batches(NamedTuple):
  """One client's work order for one round."""
  images: PyTree  # [N, H, W, C] u8, or Labelled
  index: Array  # type: ignore[assignment]  # [S, B] i32, rows of `images`
  mask: Array  # [S] bool; a False step is skipped (ragged clients)
  round: Array  # [] i32


class Learner(NamedTuple):
  """An SSL method. Its step state is opaque to whoever drives it."""
  init: Callable[[ClientState, Array], PyTree]  # (client, round) -> state
  step: Callable[..., tuple[PyTree, Metrics]]  # (state, images, rng)
  final: Callable[[ClientState, PyTree], ClientState]
  # (online, rng, images [1, H, W, C] f32) -> a client's first memory.learner
  memory: Callable[[Online, Array, Array], PyTree] = lambda *_: ()
