"""Few labels: the choice of examples, and the parameters that are trained."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedu_jax
from fedu_jax.evaluation import geometry
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import semi_supervised
from fedu_jax.evaluation.semi_supervised import labelled_rows
from fedu_jax.models import layers
from tests.helpers import small

MODULE = small.NETS.encoder


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60),
       st.floats(0.01, 1), st.booleans())
@settings(max_examples=100, deadline=None)
def test_labelled_rows(labels, ratio, balanced):
  """The number that was asked for; the first of the file, or evenly by class.
  """
  labels = np.array(labels, np.int32)
  count = round(ratio * len(labels))
  if not count:
    with pytest.raises(ValueError, match='examples is 0'):
      labelled_rows(labels, ratio, balanced=balanced)
    return
  rows = labelled_rows(labels, ratio, balanced=balanced)
  assert len(rows) == len(set(rows)) == count
  if not balanced:
    np.testing.assert_array_equal(rows, np.arange(count))
    return
  assert (np.diff(rows) > 0).all()
  left = np.setdiff1d(np.arange(len(labels)), rows)
  for c in np.unique(labels):
    mine = (labels[rows] == c).sum()
    for d in np.unique(labels[left]):  # d could have given one more
      assert mine <= (labels[rows] == d).sum() + 1


def data(count=48):
  """Images with the brightness of their left half as label."""
  labels = (np.arange(count) % 2).astype(np.int32)
  images = np.random.RandomState(0).randint(
      0, 100, (count, small.SIZE, small.SIZE, 3)).astype(np.uint8)
  images[labels == 1, :, :3] += 120
  return images, labels


@pytest.mark.parametrize('choices', [
    {}, {'layers': 1}, {'fine_tune': True}], ids=str)
def test_a_classifier_learns(choices):
  images, labels = data()
  accuracy = semi_supervised.semi_supervised(
      MODULE, small.online().encoder, images[:32], labels[:32], images[32:],
      labels[32:], jax.random.key(0), num_classes=2, hidden=16, epochs=40,
      batch_size=16, learning_rate=0.02, **choices)
  assert accuracy > 0.9


def epoch(mode, count=16):
  """Runs an epoch in batches of eight; returns the states before and after."""
  images, labels = data(count)
  encoder = small.online().encoder
  head = layers.MLP(8, 2)
  inputs = probes.embed(probes.features, MODULE, encoder, images)
  drawn = head.init(jax.random.key(0), inputs, train=False)
  top = fedu_jax.Variables(drawn['params'], drawn['batch_stats'])
  params = (encoder.params, top.params) if mode == 'tune' else top.params
  before = (encoder, top, optax.adam(1e-2).init(params))
  after = semi_supervised._epoch(
      before, inputs if mode == 'head' else jnp.asarray(images),
      jnp.asarray(labels), jnp.arange(count), module=MODULE, head=head,
      learning_rate=1e-2, size=8, mode=mode)
  return before, after


@pytest.mark.parametrize('mode, weights, statistics, heads', [
    ('warm', False, True, True), ('head', False, False, False),
    ('tune', True, True, True)])
def test_what_an_epoch_trains(mode, weights, statistics, heads):
  """Statistics change in the first epoch and are then fixed, as in EasyFL."""
  before, after = epoch(mode)
  moved = lambda a, b: any((x != y).any() for x, y in zip(
      jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
  assert moved(before[0].params['backbone'],
               after[0].params['backbone']) == weights
  assert moved(before[0].batch_stats['backbone'],
               after[0].batch_stats['backbone']) == statistics
  small.check_equal(before[0].params['projector'], after[0].params['projector'])
  small.check_equal(before[0].batch_stats['projector'],
                    after[0].batch_stats['projector'])
  assert moved(before[1].params, after[1].params)
  assert moved(before[1].batch_stats, after[1].batch_stats) == heads


def test_alignment_and_uniformity_in_numpy():
  draw = np.random.RandomState(0)
  z1, z2 = draw.randn(6, 4), draw.randn(6, 4)
  unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
  want = np.mean(np.sum((unit(z1) - unit(z2))**2, 1))
  np.testing.assert_allclose(geometry.alignment(
      jnp.asarray(z1), jnp.asarray(3 * z2)), want, rtol=1e-5)
  pairs = [np.exp(-2 * np.sum((unit(z1)[i] - unit(z1)[j])**2))
           for i in range(6) for j in range(6) if i != j]
  np.testing.assert_allclose(geometry.uniformity(jnp.asarray(z1)),
                             np.log(np.mean(pairs)), rtol=1e-4)
  same = jnp.ones((5, 3))
  np.testing.assert_allclose(geometry.uniformity(same), 0, atol=1e-5)


@pytest.mark.parametrize('count, steps', [(16, 2), (20, 3)])
def test_an_epoch_has_all_examples(count, steps):
  """As the released code's loader of labelled images, which drops none."""
  _, (_, _, opt_state) = epoch('head', count)
  assert opt_state[0].count == steps
