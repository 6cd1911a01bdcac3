"""A config of the command line that compiles and trains in seconds."""

from configs import quickstart


def get_config():
  config = quickstart.get_config()
  config.rounds = 4
  config.local_epochs = 1
  config.data.max_examples = 400
  config.model.name = 'resnet6'
  config.model.width = 2
  config.model.hidden = 16
  config.model.features = 8
  config.view.jitter = 0.0
  config.evaluation.alone = 0
  config.evaluation.probe_epochs = 5
  config.evaluation.few_draws = 2
  config.evaluation.semi_epochs = 5
  config.evaluation.semi_hidden = 16
  config.checkpoint.every = 1
  return config
