"""FedU's ablation: the encoder to aggregate, to update, and the predictor."""

import itertools

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments import published_numbers

_RULES = {'global': 'global_predictor', 'local': 'local_predictor'}
# Aggregate, update, predictor.
_ALL = list(itertools.product(
    ('online', 'target'), ('online', 'target', 'both'), _RULES))
# The arms that a scale leaves out. Scale cpu has no local predictor with an
# update of the target alone: the global predictor already shows the effect.
# Scale smoke changes one choice at a time.
_LEFT_OUT: dict[str, set[tuple[str, str, str]]] = {
    'all': set(),
    'some': {(x, 'target', 'local') for x in ('online', 'target')},
    'few': set(_ALL) - {
        ('online', 'online', 'global'), ('online', 'online', 'local'),
        ('online', 'target', 'global'), ('online', 'both', 'global'),
        ('target', 'online', 'global')}}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns up to 2 x 3 x 2 arms, non-IID."""
  data = next(iter(scale.data))
  arms, known = [], {}
  for aggregate, update, predictor in _ALL:
    row, column = f'aggregate {aggregate}, update {update}', (
        f'{predictor} predictor')
    known[row, column] = published_numbers.PROTOCOL[
        aggregate, update, predictor]
    if (aggregate, update, predictor) in _LEFT_OUT[scale.arms]:
      continue
    arms.append(plans.Arm(row, column, plans.make(
        scale, data=data, rule__name=_RULES[predictor], rule__updates=update,
        aggregation__name=('fedavg' if aggregate == 'online'
                           else 'fedavg_target'))))
  return plans.Plan(
      'What to aggregate and what to update', arms, 'linear,knn',
      {'Linear probe': 'linear', "kNN on the projector's output": 'knn'},
      known, f'{published_numbers.UNSAID}.',
      lambda results: {'protocol': figures.bars(
          results, 'linear', 'linear probe, accuracy in %')})
