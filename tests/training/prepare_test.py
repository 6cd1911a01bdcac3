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
