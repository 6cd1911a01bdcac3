"""Digits with a network that compiles and trains in seconds: a first try.

  python -m fedu_jax.main --config=configs/smoke.py --workdir=/tmp/smoke
"""

import ml_collections

from fedu_jax.configs import quickstart


def get_config() -> ml_collections.ConfigDict:
  """Returns the quickstart's config with the smallest network, few steps."""
  config = quickstart.get_config()
  config.rounds = 2
  config.local_epochs = 1
  config.data.max_examples = 400
  config.model.name = 'resnet6'
  config.model.width = 2
  config.model.hidden = 16
  config.model.features = 8
  config.view.jitter = 0.0
  config.evaluation.alone = 0
  config.evaluation.probe_epochs = 5
  config.evaluation.labels_per_class = 0
  config.evaluation.semi_epochs = 3
  config.evaluation.semi_hidden = 16
  return config
