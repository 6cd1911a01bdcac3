"""DAPU against the local and the global predictor."""

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments import published_numbers

RULES = {'local': 'local_predictor', 'global': 'global_predictor',
         'DAPU': 'dapu'}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns an arm for each rule and data set, non-IID."""
  arms = [plans.Arm(row, data, plans.make(scale, data=data, rule__name=rule))
          for data in scale.data for row, rule in RULES.items()]
  return plans.Plan(
      'Whose predictor', arms, 'linear,knn',
      {'Linear probe': 'linear', "kNN on the projector's output": 'knn'},
      {cell: text for cell, text in published_numbers.PREDICTOR.items()
       if cell[1] in scale.data},
      f'{published_numbers.UNSAID}; with ~ read off bars.',
      lambda results: {
          'predictor': figures.bars(
              results, 'linear', 'linear probe, accuracy in %'),
          'decisions': figures.decisions(
              [r for r in results if r.arm.row == 'DAPU'])})
