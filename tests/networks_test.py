"""Sizes, initialisation and BatchNorm's conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax import networks
from fedu_jax import trees

IMAGES = jnp.zeros((2, 32, 32, 3))


def count(tree):
  return sum(np.prod(x.shape) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('make, backbone, projector, features, convs', [
    (networks.resnet18, 11_168_832, 10_500_096, 512, 17),
    (networks.resnet50, 23_500_352, 16_791_552, 2048, 49)])
def test_sizes_of_the_reference(make, backbone, projector, features, convs):
  """Counts that were read off the reference (facts B2, A4)."""
  nets = make()
  online = jax.eval_shape(lambda: networks.init_online(
      nets, jax.random.key(0), IMAGES))
  encoder = online.encoder.params
  assert count(encoder['backbone']) == backbone
  assert count(encoder['projector']) == projector
  assert count(online.predictor.params) == 16_791_552
  distances = jax.eval_shape(trees.conv_distances, encoder, encoder)
  assert len(distances) == convs
  below = jax.eval_shape(lambda v: nets.encoder.apply(
      v._asdict(), IMAGES, method='features'), online.encoder)
  assert below.shape == (2, features)


def test_initialisation_is_pytorchs():
  """Uniform in +-1/sqrt(fan_in), biases too; BatchNorm at identity."""
  nets = networks.resnet18(width=16, hidden=64, features=32)
  online = networks.init_online(nets, jax.random.key(0), IMAGES)
  params = online.encoder.params
  for leaf, fan_in in [
      (params['backbone']['conv1']['kernel'], 9 * 3),
      (params['backbone']['layer2_0']['conv2']['kernel'], 9 * 32),
      (params['backbone']['layer2_0']['shortcut']['kernel'], 16),
      (params['projector']['linear1']['kernel'], 128),
      (params['projector']['linear1']['bias'], 128),
      (online.predictor.params['linear2']['bias'], 64)]:
    bound = fan_in ** -0.5
    assert 0.85 * bound < np.abs(leaf).max() <= bound
    assert np.abs(leaf.mean()) < 4 * bound / np.sqrt(3 * leaf.size)
  norm = params['backbone']['bn1']
  np.testing.assert_array_equal(norm['scale'], 1)
  np.testing.assert_array_equal(norm['bias'], 0)
  stats = online.encoder.batch_stats['backbone']['bn1']
  np.testing.assert_array_equal(stats['mean'], 0)  # initialising tracks nothing
  np.testing.assert_array_equal(stats['var'], 1)


def test_batch_norm_tracks_the_unbiased_variance():
  x = np.random.RandomState(0).randn(3, 2, 2, 5).astype(np.float32) * 3 + 1
  norm = networks.BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=True)
  y, changed = norm.apply(variables, x, train=True, mutable=['batch_stats'])
  mean, biased = x.mean((0, 1, 2)), x.var((0, 1, 2))
  unbiased = x.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(biased + 1e-5), rtol=1e-4,
                             atol=1e-5)
  stats = jax.tree.map(np.asarray, changed['batch_stats'])
  np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * unbiased, rtol=1e-5)
  y = norm.apply({**variables, **changed}, x, train=False)
  np.testing.assert_allclose(
      y, (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5), rtol=1e-4,
      atol=1e-5)
