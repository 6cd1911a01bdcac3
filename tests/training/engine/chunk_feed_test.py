"""Images that are fed in chunks: what is read, what is chosen, what is kept."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from fedu_jax.core.state import Labelled
from fedu_jax.data.lazy_arrays import Lazy
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.engine import chunk_feed
from fedu_jax.training.engine import chunk_programs
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import feeding
from fedu_jax.training.engine import memory_needs
from fedu_jax.training.engine import placement
from tests.helpers import small
from tests.training.engine import one_round_test

PARTS = [np.array([9, 3, 7, 5, 1]), np.array([0, 8])]
INDEX = np.array([[[0, 4], [2, 1], [3, 0]], [[1, 0], [0, 0], [0, 0]]])
MASK = np.array([[True, False, True], [True, False, False]])


def chunks_of(examples, mask, length, counted=True):
  steps = chunk_feed.steps_of(INDEX, mask)
  return list(chunk_feed.chunks(examples, PARTS, INDEX, steps, length=length,
                                counted=counted))


@pytest.mark.parametrize('mask', [MASK, None])
@pytest.mark.parametrize('length', [1, 2, 5])
def test_each_step_has_the_images_of_its_batch(mask, length):
  """The images and labels by hand, of ragged clients."""
  images = np.arange(10, dtype=np.uint16)[:, None, None, None] + 1
  found = chunks_of(Labelled(images, np.arange(10)), mask, length)
  done = [np.flatnonzero(own) for own in (
      np.ones((2, 3)) if mask is None else mask)]
  assert len(found) == -(-max(map(len, done)) // length)
  for k, steps in enumerate(done):
    seen = [(chunk.numbers[k, i], chunk.images.images[k, 2 * i:2 * i + 2],
             chunk.images.labels[k, 2 * i:2 * i + 2])
            for chunk in found for i in range(chunk.done[k])]
    assert [int(number) for number, *_ in seen] == steps.tolist()
    for number, pixels, labels in seen:
      rows = PARTS[k][INDEX[k, number]]
      assert labels.tolist() == rows.tolist()
      assert pixels[:, 0, 0, 0].tolist() == (rows + 1).tolist()
  assert all(chunk.images.images.shape == (2, 2 * length, 1, 1, 1)
             and chunk.images.images.dtype == np.uint16 for chunk in found)
  assert chunks_of(images, None, 3, counted=False)[0].done is None


def test_only_the_rows_of_a_chunk_are_read():
  """One chunk at a time, when it is asked for: images may be a mapped file."""
  read = []
  def rows_of(rows):
    read.append(rows.tolist())
    return np.zeros((len(rows), 1, 1, 3), np.uint8)
  lazy = Lazy((10, 1, 1, 3), np.uint8, rows_of)
  found = chunk_feed.chunks(lazy, PARTS, INDEX, chunk_feed.steps_of(
      INDEX, MASK), length=1, counted=True)
  assert not read
  next(found)
  assert read == [[9, 1], [8, 0]]
  next(found)
  assert read[2:] == [[5, 9]]


def test_a_chunks_program_holds_one_chunk_of_images():
  """And the state, which it replaces in place. The next chunk is outside."""
  recipe = one_round_test.recipe_of(learner=small.counting_learner())
  client = small.client(0, small.federation()[1])
  layout = device_mesh.Layout(1, None)
  sizes = []
  for length in (1, 3):
    shapes = chunk_programs.Shapes(jax.ShapeDtypeStruct(
        (small.BATCH, 64, 64, 3), np.uint8), 10**6, length)
    compiled = chunk_programs.compile_steps(recipe, shapes, layout, client)
    sizes.append(cost_model.arguments(compiled))
    state = sizes[-1] - length * small.BATCH * 64 * 64 * 3
    # The metrics of all steps are a part of it.
    assert 0 < state < 4 * shapes.steps(recipe) + 2**16
    assert compiled.memory_analysis().alias_size_in_bytes > 0.9 * state
  assert sizes[1] - sizes[0] == 2 * (small.BATCH * 64 * 64 * 3 + 4)


def test_nothing_keeps_a_chunk_that_was_trained(monkeypatch):
  """When a chunk has been copied, no other is referred to."""
  federation = one_round_test.in_chunks(
      one_round_test.recipe_of(local_epochs=2), length=1)
  size = federation._shapes.batch.shape
  federation.compile()
  held = []
  copied = federation._copied

  def watched(chunks):
    for chunk in copied(chunks):
      held.append(sum(x.shape == (1, *size) for x in jax.live_arrays()))
      yield chunk
  monkeypatch.setattr(federation, '_copied', watched)
  federation.advance()
  # All of the round but the first client's, and the first of the next round.
  assert held == [1] * 13


# --- what is chosen --------------------------------------------------------

SIZES = cost_model.Sizes(
    4, 4, 1, 1, 4, 4, '', 100, 80, 80, 90, 200, 10_000, 0, 100., 100., 1, 1, 1,
    batch=50)


def choose(device, **changes):
  recipe = dataclasses.replace(one_round_test.recipe_of(), local_epochs=2,
                               **changes)
  return feeding.choose(recipe, SIZES, device)


def test_chunks_are_chosen_if_a_client_does_not_fit():
  """One client takes 10 kB of images and 0.9 kB of networks."""
  assert choose(1e6) == SIZES
  found = choose(9e3)
  assert found.chunk_steps > 1 and found.at_once == 1
  assert 2 * found.chunk < 9e3 / 4
  assert placement.store_of(one_round_test.recipe_of(), found,
                            memory_needs.Machine(9e3, 1e9)) == 'host'
  assert not memory_needs.lacking(found._replace(store='host'),
                                  memory_needs.Machine(9e3, 1e9))
  assert choose(8e2).chunk == 0  # no chunk would do: it is refused as ever
  assert choose(9e3, feed='whole') == SIZES
  assert choose(1e30, feed='chunks').chunk == 20_000  # all steps
  assert choose(1e6, feed='chunks', chunk_steps=3).chunk_steps == 3
  assert choose(1e3, feed='chunks').chunk_steps == 1


@pytest.mark.parametrize('changes, words', [
    ({'execution': 'vmap'}, 'set config.execution to map'),
    ({'devices_per_client': 2}, 'devices_per_client to 1'),
    ({'clients_per_device': 2}, 'clients_per_device to 0'),
    ({'store': 'device'}, 'set config.store to auto'),
    ({'aggregation': one_round_test.Aggregation(one_round_test.median)},
     'a whole cohort')])
def test_what_does_not_go_with_chunks(changes, words):
  with pytest.raises(BadInput, match=f'config.feed is chunks, but .*{words}'):
    choose(1e9, feed='chunks', **changes)
  with pytest.raises(BadInput, match=f'does not fit a device .*{words}'):
    choose(9e3, **changes)


def test_a_refusal_names_chunks():
  recipe = one_round_test.recipe_of(feed='whole')
  sizes = SIZES._replace(store='host', at_once=1)
  with pytest.raises(BadInput, match='set config.feed to chunks'):
    memory_needs.check(recipe, sizes, memory_needs.Machine(9e3, 1e9))


# --- bits ------------------------------------------------------------------

LEARNER = small.learner()


@functools.cache
def whole(**changes):
  return one_round_test.run(one_round_test.on_device(
      one_round_test.recipe_of(learner=LEARNER, **changes)))


@pytest.mark.parametrize('length', [1, 4])
def test_fedu_in_chunks_gives_the_same_bits(length):
  """BYOL, ragged clients, stragglers, lost uploads; two rounds."""
  changes = {'local_epochs': 2, 'stragglers': 0.5, 'least': 0.1, 'dropout': 0.3}
  found = one_round_test.run(one_round_test.in_chunks(
      one_round_test.recipe_of(learner=LEARNER, **changes), length))
  expected = whole(**changes)
  small.check_equal(found, expected)
  steps = expected[2][0]['steps'].tolist()
  assert len(set(steps)) > 1 and any(x % 4 for x in steps)
