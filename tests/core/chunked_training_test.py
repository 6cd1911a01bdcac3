"""Training in chunks of steps: the same bits as all steps at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.core import chunked_training
from fedu_jax.core.chunked_training import Chunk
from tests.helpers import small

LEARNER = small.learner()


@functools.cache
def programs(packed):
  """Each part as a program of its own, as the product runs them."""
  batch = jax.ShapeDtypeStruct((small.BATCH, small.SIZE, small.SIZE, 3),
                               jnp.uint8)
  return (
      jax.jit(functools.partial(chunked_training.start, learner=LEARNER,
                                batch=batch, steps=4)),
      jax.jit(functools.partial(chunked_training.go_on, learner=LEARNER,
                                packed=packed), donate_argnums=0),
      jax.jit(functools.partial(chunked_training.end, learner=LEARNER)))


def in_chunks(client, batches, rng, length, packed=False):
  """Trains a client, with the images of a chunk at a time."""
  start, go_on, end = programs(packed)
  images, index = np.asarray(batches.images), np.asarray(batches.index)
  steps = np.flatnonzero(np.ones(len(index)) if batches.mask is None
                         else batches.mask)
  progress = start(client, batches.round, rng)
  for first in range(0, len(steps), length):
    own = steps[first:first + length]
    numbers = np.zeros(length, np.int32)
    numbers[:len(own)] = own
    # Garbage where no step is: it must not be trained on.
    rows = np.full((length, small.BATCH), 0)
    rows[:len(own)] = index[own]
    count = None if batches.mask is None else np.int32(len(own))
    progress = go_on(progress, Chunk(
        images[rows.reshape(-1)], numbers, count), rng)
  return end(client, progress, jnp.int32(len(steps)), batches.round)


@pytest.fixture(scope='module')
def whole():
  return jax.jit(functools.partial(fedu_jax.local_update, learner=LEARNER))


@pytest.mark.parametrize('mask', [
    [True] * 4, [True, True, True, False], [False, True, False, True]], ids=str)
@pytest.mark.parametrize('length', [1, 3])
def test_chunks_give_the_same_bits(mask, length, whole):
  """Chunks that divide the steps and that do not; steps that are skipped."""
  _, clients, batches = small.federation(sizes=(16,), round_=2)
  client, rng = small.client(0, clients), jax.random.key(5)
  batches = small.client(0, batches)._replace(mask=jnp.array(mask))
  small.check_equal(in_chunks(client, batches, rng, length),
                    whole(client, batches, rng))


@pytest.mark.parametrize('length, packed', [(2, False), (2, True)])
def test_full_chunks_give_the_same_bits(length, packed, whole):
  """If no step is skipped, a chunk has no count."""
  _, clients, batches = small.federation(sizes=(16,))
  client, rng = small.client(0, clients), jax.random.key(5)
  batches = small.client(0, batches)._replace(mask=None)
  small.check_equal(in_chunks(client, batches, rng, length, packed),
                    whole(client, batches, rng))
