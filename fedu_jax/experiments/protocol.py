"""What is aggregated, what is updated, and whose predictor: the ablation."""

from fedu_jax.experiments import figures
from fedu_jax.experiments import plan as plans
from fedu_jax.experiments import published

_RULES = {'global': 'global_predictor', 'local': 'local_predictor'}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns two by three by two arms, or fewer, non-IID."""
  data = next(iter(scale.data))
  arms, known = [], {}
  for aggregate in ('online', 'target'):
    for update in ('online', 'target', 'both'):
      for predictor, rule in _RULES.items():
        if predictor == 'local' and (scale.arms == 'few' or (
            scale.arms == 'some' and update != 'online')):
          continue  # where updating the target ruins all, so would a predictor
        row = f'aggregate {aggregate}, update {update}'
        column = f'{predictor} predictor'
        arms.append(plans.Arm(row, column, plans.make(
            scale, data=data, rule__name=rule, rule__updates=update,
            aggregation__name=('fedavg' if aggregate == 'online'
                               else 'fedavg_target'))))
        known[row, column] = published.PROTOCOL[aggregate, update, predictor]
  return plans.Plan(
      'What to aggregate and what to update', arms, 'linear,knn',
      {'Linear probe': 'linear', "kNN on the projector's output": 'knn'},
      known, f'{published.FEDU}; its data, split and rounds are not printed.',
      lambda results: {'protocol': figures.bars(
          results, 'linear', 'linear probe, accuracy in %')})
