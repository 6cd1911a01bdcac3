"""Scores with 1 % and 10 % of the labels, as released and with fine-tuning."""

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments.tables import linear_evaluation

_ROWS = ('untrained', 'one client', 'FedU', 'FedBYOL', 'FedEMA, auto',
         'FedSimSiam', 'FedSimCLR')


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns the non-IID arms of the main table, scored with few labels."""
  rows = _ROWS[:3] if scale.arms == 'few' else _ROWS
  arms = [arm for arm in linear_evaluation.plan(scale).arms
          if arm.row in rows and arm.column.endswith('non-IID')]
  tables = {}
  for kind, how in (('semi', 'a head alone, as released'),
                    ('finetune', 'everything fine-tuned')):
    for share in (1, 10):
      tables[f'{share} % of the labels, {how}'] = f'{kind} {share} %'
  return plans.Plan(
      'Semi-supervised evaluation', arms,
      'semi:0.01,semi:0.1,finetune:0.01,finetune:0.1', tables, {},
      'the tables of the papers could not be obtained. Labelled images are the '
      'first of the file; unlike the released code they are also among those '
      'that were trained on without labels.',
      lambda results: {'semi': figures.bars(
          results, 'semi 10 %', 'head on 10 % of the labels, accuracy in %')})
