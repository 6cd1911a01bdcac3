"""Tests of neighbours, near-duplicates and outliers."""

import numpy as np

from fedu_jax.encoders import neighbours

DRAW = np.random.RandomState(0)
FEATURES = np.abs(DRAW.randn(40, 6)).astype(np.float32)


def test_nearest_are_those_of_all_pairs(monkeypatch):
  """Blocks of rows give what one matrix of all cosines gives."""
  monkeypatch.setattr(neighbours, '_ROWS', 7)
  found = neighbours.nearest(FEATURES, 5)
  centred = FEATURES.astype(np.float64) - FEATURES.astype(np.float64).mean(0)
  unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
  cosines = unit @ unit.T
  np.fill_diagonal(cosines, -2)
  np.testing.assert_array_equal(found.rows, np.argsort(-cosines, 1)[:, :5])
  np.testing.assert_allclose(found.similarity, -np.sort(-cosines, 1)[:, :5],
                             atol=1e-6)


def test_few_images_have_few_neighbours():
  assert neighbours.nearest(FEATURES[:3], 5).rows.shape == (3, 2)
  alone = neighbours.nearest(FEATURES[:1], 5)
  assert alone.rows.shape == (1, 0)
  assert not neighbours.duplicates(alone, 9)
  assert not len(neighbours.outliers(alone, 9))


def test_copies_and_strangers_are_found():
  """A copy is a pair of its original; an opposite direction is far away."""
  features = 1 + 0.3 * DRAW.randn(30, 6).astype(np.float32) * [3, 1, 1, 1, 1, 0]
  features = features.astype(np.float32)
  features[17] = features[4] * 1.0001
  features[9] = [1, 1, 1, 1, 1, 9]
  found = neighbours.nearest(features, 4)
  pairs = neighbours.duplicates(found, 3)
  assert pairs[0][:2] == (4, 17) and pairs[0][2] > 0.9999
  assert len({pair[:2] for pair in pairs}) == len(pairs)
  assert neighbours.outliers(found, 1).tolist() == [9]
