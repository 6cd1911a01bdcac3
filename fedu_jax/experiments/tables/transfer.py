"""Scores of representations on data that they were not trained on."""

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments.tables import linear_evaluation

_ROWS = ('untrained', 'one client', 'FedU', 'FedBYOL', 'FedEMA, auto',
         'FedSimCLR', 'supervised FedAvg')


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns the non-IID arms of the main table, probed on other data."""
  to = {'digits': 'digits'}
  if 'CIFAR-100' in scale.data:
    to |= {'cifar100': 'tfds:cifar100', 'cifar10': 'tfds:cifar10'}

  def elsewhere(arm):
    own = arm.config.data.source if scale.name != 'smoke' else ''
    return ','.join(f'transfer:{x}' for x in to.values() if x != own)
  arms = [arm._replace(protocols=elsewhere(arm))
          for arm in linear_evaluation.plan(scale).arms
          if arm.row in _ROWS and arm.column.endswith('non-IID')]
  return plans.Plan(
      'Transfer', arms, '',
      {f'Linear probe on {name}': f'transfer to {name}' for name in to}, {},
      "whether FedU's paper has such a table could not be found.",
      lambda results: {'transfer': figures.bars(
          results, 'transfer to digits', 'linear probe on digits, '
          'accuracy in %')})
