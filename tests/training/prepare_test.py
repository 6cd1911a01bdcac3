"""A run is prepared from its config alone."""

import numpy as np

from configs import smoke
from fedu_jax.data import sources
from fedu_jax.evaluation.encoder_scores import Settings
from fedu_jax.training import prepare
from tests.helpers import small


def test_every_setting_of_scores_is_the_configs():
  """`every` and `alone` are settings of training."""
  config = smoke.get_config()
  pixels = small.images(4)
  scorer = prepare.scorer_of(config, small.NETS, sources.Dataset(
      pixels, np.arange(4), pixels, np.arange(4)))
  assert set(config.evaluation) - {'every', 'alone'} == set(Settings._fields)
  assert scorer.settings._asdict() == {
      name: config.evaluation[name] for name in Settings._fields}


def test_probes_learn_from_the_labelled_images_that_are_set_for_it():
  """Training images then need no labels, and other labels count for nothing."""
  config = smoke.get_config()
  train, probe, test = (small.images(n) for n in (6, 4, 3))
  data = sources.Dataset(train, None, test, np.arange(3), probe_images=probe,
                         probe_labels=np.arange(4))
  for labels in (None, np.full(6, 7)):
    scorer = prepare.scorer_if_labelled(
        config, small.NETS, data._replace(train_labels=labels))
    np.testing.assert_array_equal(scorer.train_images, probe)
    np.testing.assert_array_equal(scorer.train_labels, np.arange(4))
    np.testing.assert_array_equal(scorer.test_images, test)
  assert prepare.examples_of(config, data) is train
  config.learner.name = 'supervised'
  assert not prepare.scorer_of(config, small.NETS, data).classifies
  assert prepare.scorer_of(config, small.NETS, data._replace(
      probe_images=None, probe_labels=None)).classifies
