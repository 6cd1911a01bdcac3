"""Scores of encoders do not depend on the order of a file, or on NaN."""

import math
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets

from fedu_jax.core.state import Variables
from fedu_jax.evaluation import encoder_scores
from fedu_jax.evaluation import protocols
from fedu_jax.evaluation import semi_supervised
from tests.helpers import small

NOTHING = Variables({}, {})


class OnPixels(encoder_scores.Scorer):
  """An encoder with pixels as features."""

  def _features(self, encoder):
    return (jnp.asarray(self.train_images, jnp.float32),
            jnp.asarray(self.test_images, jnp.float32))


def scorer(order=lambda labels: np.arange(len(labels))):
  """A scorer of digits; their file is mixed."""
  digits = datasets.load_digits()
  x, y = digits.data / 16, digits.target.astype(np.int32)
  test = np.arange(len(y)) % 5 == 4
  x, y, asked, answers = x[~test], y[~test], x[test], y[test]
  rows = order(y)
  return OnPixels(small.NETS, x[rows], y[rows], asked, answers,
                  small.SETTINGS, 0)


def by_class(labels):
  return np.argsort(labels, kind='stable')


def test_a_file_sorted_by_class_is_probed_as_a_mixed_one():
  """In the order of the file, each batch would have one or two classes."""
  mixed, sorted_ = (scorer(order).linear(NOTHING)
                    for order in (lambda y: np.arange(len(y)), by_class))
  assert mixed > 0.9 and sorted_ > mixed - 0.02


def test_the_first_share_of_a_file_sorted_by_class_has_all_classes(monkeypatch):
  seen = []
  monkeypatch.setattr(semi_supervised, 'semi_supervised',
                      lambda module, encoder, images, labels, *args, **kwargs:
                      seen.append(labels) or 0.5)
  online = types.SimpleNamespace(encoder=NOTHING)
  for choice in ('0.1', '0.1:balanced'):
    protocols.semi(scorer(by_class), online, choice)
  assert [len(labels) for labels in seen] == [144, 144]
  assert all(set(labels) == set(range(10)) for labels in seen)


def test_examples_in_no_order_keep_their_order():
  """So the released protocols keep their bits."""
  draw = np.random.RandomState(0)
  for labels in (scorer().train_labels, np.tile(np.arange(10), 50),
                 draw.randint(0, 10, 500), draw.randint(0, 2, 60),
                 np.zeros(50, int), np.arange(20), np.array([0, 1])):
    np.testing.assert_array_equal(encoder_scores.mixed(labels, 0),
                                  np.arange(len(labels)))
  for labels in (np.repeat(np.arange(10), 50), np.repeat([3, 1, 2], 40),
                 np.repeat(np.tile(np.arange(10), 5), 10)):
    order = encoder_scores.mixed(labels, 0)
    assert sorted(order) == list(range(len(labels)))
    assert len(set(labels[order[:len(set(labels)) * 4]])) == len(set(labels))


def test_the_best_of_scores_is_a_number_if_one_is():
  for found in ((math.nan, 0.5), (0.5, math.nan)):
    assert encoder_scores.best([{'knn': x} for x in found]) == {'knn': 0.5}
  assert math.isnan(encoder_scores.best([{'knn': math.nan}])['knn'])


def test_a_classifier_of_no_numbers_has_no_accuracy():
  """A whole network with one weight of NaN."""
  pixels = small.images(12)
  labels: Any = np.arange(12) % 4
  own = encoder_scores.Scorer(small.NETS, pixels, labels, pixels, labels,
                              small.SETTINGS, 0, classifies=True)
  online = small.online()
  assert 0 <= own.classifier(online) <= 1
  spoilt = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.nan),
                        online.predictor.params)
  assert math.isnan(own.classifier(online._replace(
      predictor=online.predictor._replace(params=spoilt))))
