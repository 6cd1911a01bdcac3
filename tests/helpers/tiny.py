"""The smoke config, changed for tests of a run."""

from configs import smoke


def get_config():
  config = smoke.get_config()
  config.rounds = 4
  config.evaluation.labels_per_class = 10
  config.evaluation.few_draws = 2
  config.evaluation.semi_epochs = 5
  config.checkpoint.every = 1
  return config
