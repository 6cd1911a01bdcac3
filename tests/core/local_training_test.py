"""Local training: order of examples, masks, divergence, learners."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.core import trees
from fedu_jax.core.state import ClientArrays
from tests.helpers import small


@given(st.lists(st.integers(4, 30), min_size=1, max_size=4), st.integers(1, 3),
       st.integers(2, 4), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_each_epoch_visits_each_example_once(sizes, epochs, batch, seed):
  """Batches are full and hold a client's own examples; the rest is dropped."""
  parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
  arrays = fedu_jax.client_arrays(
      np.zeros((sum(sizes), 1, 1, 3), np.uint8), parts)
  for k, n in enumerate(sizes):
    batches = fedu_jax.make_batches(
        jax.tree.map(lambda x, k=k: x[k], arrays), jax.random.key(seed),
        jnp.int32(3), batch_size=batch, epochs=epochs)
    steps = n // batch
    assert batches.mask.sum() == epochs * steps
    assert batches.mask[:epochs * steps].all()  # the masked ones come last
    visits = np.asarray(batches.index)[:epochs * steps].reshape(epochs, -1)
    for epoch in visits:
      assert len(set(epoch)) == steps * batch and epoch.max() < n
    assert batches.round == 3


@pytest.mark.parametrize('double', [False, True])
def test_padding_is_never_visited(double):
  """It holds with and without jax_enable_x64, and the order is the same."""
  arrays = ClientArrays(jnp.zeros((12, 1, 1, 3), jnp.uint8), jnp.int32(5))

  def orders():
    return np.asarray(jax.vmap(lambda seed: fedu_jax.make_batches(
        arrays, jax.random.key(seed), jnp.int32(0), batch_size=2,
        epochs=2).index[:4])(jnp.arange(50)))
  with jax.enable_x64(double):
    found = orders()
  assert found.max() < 5
  for epoch in found.reshape(100, 4):  # two batches: a permutation's beginning
    assert len(set(epoch)) == 4
  np.testing.assert_array_equal(found, orders())


def test_epochs_and_keys_shuffle_differently():
  arrays = ClientArrays(jnp.zeros((64, 1, 1, 3), jnp.uint8), jnp.int32(64))
  def order(seed):
    return np.asarray(fedu_jax.make_batches(
        arrays, jax.random.key(seed), jnp.int32(0), batch_size=64,
        epochs=2).index)
  a, b = order(0)
  assert (a != b).any() and (order(1)[0] != a).any()
  np.testing.assert_array_equal(order(0)[0], a)


def test_shuffle_is_uniform():
  """The position of the first example is uniform: chi-square over 5 positions.
  """
  arrays = ClientArrays(jnp.zeros((8, 1, 1, 3), jnp.uint8), jnp.int32(5))
  keys = jax.random.split(jax.random.key(0), 5000)
  orders = jax.vmap(lambda key: fedu_jax.make_batches(
      arrays, key, jnp.int32(0), batch_size=1, epochs=1).index[:5, 0])(keys)
  counts = np.bincount(np.argmax(orders == 0, 1), minlength=5)
  assert ((counts - 1000) ** 2 / 1000).sum() < 18.5  # p = 0.001, 4 degrees


def test_too_few_examples_for_a_batch():
  arrays = ClientArrays(jnp.zeros((3, 1, 1, 3), jnp.uint8), jnp.int32(3))
  with pytest.raises(ValueError, match='largest client has 3'):
    fedu_jax.make_batches(arrays, jax.random.key(0), jnp.int32(0),
                          batch_size=4, epochs=1)


def test_sums_by_hand():
  """The learner adds mean pixels, so drift, loss and steps are known by hand.
  """
  _, clients, batches = small.federation(sizes=(8,), epochs=2)
  batches = small.client(0, batches)
  start = small.client(0, clients)
  client, metrics = jax.jit(
      lambda c, b: fedu_jax.local_update(
          c, b, jax.random.key(0), learner=small.counting_learner()))(
              start, batches)
  pixels = np.asarray(batches.images, np.float64)[np.asarray(batches.index)]
  total = pixels.mean((1, 2, 3, 4)).sum()
  np.testing.assert_allclose(metrics['loss'], total / 4, rtol=1e-5)
  assert metrics['steps'] == 4
  kernel = client.online.encoder.params['backbone']['conv1']['kernel']
  before = start.online.encoder.params['backbone']['conv1']['kernel']
  np.testing.assert_allclose(kernel - before, total, rtol=1e-4)
  np.testing.assert_allclose(metrics['divergence/backbone/conv1'],
                             total * np.sqrt(kernel.size), rtol=1e-4)
  layers = [v for name, v in metrics.items() if name.startswith('divergence/')]
  assert len(layers) == 5  # the stem and 2 x 2; no shortcut
  np.testing.assert_allclose(metrics['divergence'], np.mean(layers), rtol=1e-5)
  assert client.divergence == metrics['divergence']
  assert client.last_round == 0


def test_the_papers_divergence():
  """The optional measure is the squared norm over all encoder parameters."""
  _, clients, batches = small.federation(sizes=(8,))
  client, metrics = fedu_jax.local_update(
      small.client(0, clients), small.client(0, batches), jax.random.key(0),
      learner=small.counting_learner(), distance=trees.squared_distance)
  size = sum(x.size for x in jax.tree.leaves(client.online.encoder.params))
  moved = float(metrics['loss']) * 2  # two steps of the mean pixel
  np.testing.assert_allclose(metrics['divergence'], size * moved**2, rtol=1e-3)


def test_masked_steps_change_nothing():
  """A client with masked steps ends with the numbers of one without them."""
  _, clients, batches = small.federation(sizes=(8, 16))
  padded = small.client(0, batches)
  assert padded.mask.tolist() == [True, True, False, False]
  bare = padded._replace(index=padded.index[:2], mask=padded.mask[:2])
  update = jax.jit(lambda b: fedu_jax.local_update(
      small.client(0, clients), b, jax.random.key(1), learner=small.learner()))
  a, metrics_a = update(padded)
  b, metrics_b = update(bare)
  small.check_equal(a, b)
  small.check_equal(metrics_a, metrics_b)


def test_no_step_at_all():
  _, clients, batches = small.federation(sizes=(8,))
  batches = small.client(0, batches)
  batches = batches._replace(mask=jnp.zeros_like(batches.mask))
  start = small.client(0, clients)
  client, metrics = fedu_jax.local_update(
      start, batches, jax.random.key(0), learner=small.learner())
  small.check_equal(client.online, start.online)
  assert metrics['divergence'] == 0 and metrics['loss'] == 0


def without_mask(batches):
  return batches._replace(mask=None)


@pytest.mark.parametrize('choices', [
    {'masked': True}, {'packed': True}, {'masked': True, 'packed': True}])
@pytest.mark.parametrize('sizes', [(16,), (8, 16)])
def test_each_way_of_doing_steps_gives_the_same_bits(sizes, choices):
  """Of a client that does all steps, and of one that skips some."""
  _, clients, batches = small.federation(sizes=sizes)
  batches, start = small.client(0, batches), small.client(0, clients)

  def run(batches, **more):
    return jax.jit(lambda b: fedu_jax.local_update(
        start, b, jax.random.key(1), learner=small.learner(), **more))(batches)
  expected = run(batches)
  assert expected[1]['steps'] == sizes[0] // small.BATCH
  small.check_equal(run(batches, **choices), expected)
  if len(sizes) == 1:
    small.check_equal(run(without_mask(batches), **choices), expected)


def test_steps_that_are_skipped_may_be_anywhere():
  """The loop ends after the client's own steps, whichever these are."""
  _, clients, batches = small.federation(sizes=(16,))
  batches, start = small.client(0, batches), small.client(0, clients)
  some = batches._replace(mask=jnp.array([False, True, False, True]))

  def seen(batches, **more):
    def step(state, images, rng):
      return state * 2 + images.sum(), {'rng': jax.random.uniform(rng),
                                        'sum': images.sum(dtype=jnp.float32)}
    learner = small.counting_learner()._replace(
        init=lambda *_: jnp.float32(0), step=step, final=lambda c, s: c)
    return fedu_jax.local_update(start, batches, jax.random.key(2),
                                 learner=learner, **more)[1]
  found, masked = seen(some), seen(some, masked=True)
  rows = [seen(batches._replace(mask=jnp.arange(4) == i)) for i in (1, 3)]
  for name in ('rng', 'sum'):
    np.testing.assert_allclose(
        found[name], np.mean([row[name] for row in rows]), rtol=1e-6)
    np.testing.assert_array_equal(found[name], masked[name])


def test_no_step_is_behind_a_conditional():
  """XLA copies the whole state next to one, and asks the host before each."""
  _, clients, batches = small.federation(sizes=(8, 16))
  for own in (small.client(0, batches),
              without_mask(small.client(1, batches))):
    text = str(jax.make_jaxpr(lambda b: fedu_jax.local_update(
        small.client(0, clients), b, jax.random.key(1),
        learner=small.counting_learner()))(own))
    assert ' cond[' not in text
    assert ('while[' in text) == (own.mask is not None)
