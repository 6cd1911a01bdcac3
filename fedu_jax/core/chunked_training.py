"""Local training in chunks of steps, each with the images of its steps alone.

`start`, then `go_on` for each chunk, then `end` do what
`local_training.local_update` does at once, to the same bits. They can be
programs of their own, so that a device holds the images of a chunk and not all
images of a client.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedu_jax.core import local_steps
from fedu_jax.core import local_training
from fedu_jax.core import trees
from fedu_jax.core.state import Array, ClientState, Learner, Metrics, PyTree


class Chunk(NamedTuple):
  """Some steps of one client's round, and their images."""
  images: PyTree  # [n * B, H, W, C] u8 or u16, or Labelled; batch after batch
  numbers: Array  # [n] i32, the numbers of the steps in the round
  done: Array | None  # [] i32, only the first so many are done; None: all n


class Progress(NamedTuple):
  """A client between two chunks."""
  state: PyTree  # of the learner
  metrics: Metrics  # [S, ...] each; zeros for steps that are not done


def start(client: ClientState, round: Array, rng: Array, *, learner: Learner,
          batch: PyTree, steps: int) -> Progress:
  """Begins a client's local training.

  Args:
    client: the client after its download.
    round: the number of the round, [] i32.
    rng: a key.
    learner: the SSL method.
    batch: the shapes of the images of a step, [B, H, W, C].
    steps: S, the steps of the largest client in a round.
  """
  state = learner.init(client, round)

  def step(state, number, index):
    del number, index
    images = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
    return learner.step(state, images, rng)
  return Progress(state, local_steps.no_metrics(
      step, state, jax.tree.leaves(batch)[0].shape[0], steps))


def go_on(progress: Progress, chunk: Chunk, rng: Array, *, learner: Learner,
          packed: bool = False) -> Progress:
  """Does the steps of a chunk.

  Args:
    progress: the client before the chunk.
    chunk: the chunk.
    rng: the key of `local_update`; step s uses `fold_in(rng, s)`.
    learner: the SSL method.
    packed: as for `local_update`.
  """
  step, pack, unpack = local_training.stepper(
      progress.state, chunk.images, rng, learner=learner, packed=packed)
  rows = len(jax.tree.leaves(chunk.images)[0])
  index = jnp.arange(rows).reshape(len(chunk.numbers), -1)
  state, metrics = local_steps.go_on(
      step, pack(progress.state), progress.metrics, chunk.numbers, index,
      chunk.done)
  return Progress(unpack(state), metrics)


def end(client: ClientState, progress: Progress, steps: Array, round: Array, *,
        learner: Learner,
        distance: local_training.Distance = trees.conv_distance
        ) -> tuple[ClientState, Metrics]:
  """Ends a client's local training.

  Args:
    client: the client after its download.
    progress: the client after its last chunk.
    steps: the number of steps that were done, [] i32.
    round: the number of the round, [] i32.
    learner: the SSL method.
    distance: the measure of the encoder's drift.

  Returns:
    The result of `local_update`.
  """
  return local_training.end(
      client, progress.state, local_steps.means(progress.metrics, steps), steps,
      round, learner=learner, distance=distance)
