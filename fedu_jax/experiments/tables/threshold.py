"""A sweep over DAPU's threshold."""

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures

THRESHOLDS = {'smoke': (0.1, 0.4), 'cpu': (0.2, 0.4, 0.8),
              'paper': (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns an arm for each threshold; 0 and infinity are fixed predictors."""
  data = next(iter(scale.data))
  arms = [plans.Arm('0 (local)', data, plans.make(
      scale, data=data, rule__name='local_predictor'))]
  arms += [plans.Arm(f'{x:g}', data, plans.make(
      scale, data=data, rule__threshold=x)) for x in THRESHOLDS[scale.name]]
  arms.append(plans.Arm('infinite (global)', data, plans.make(
      scale, data=data, rule__name='global_predictor')))
  return plans.Plan(
      "DAPU's threshold", arms, 'linear,knn',
      {'Linear probe': 'linear', "kNN on the projector's output": 'knn'}, {},
      'the figure exists (Zhuang et al. 2021) but its values could not be '
      'obtained; its text says that the best lies inside.',
      lambda results: {
          'threshold': figures.sweep(
              results, 'linear', 'threshold', 'linear probe, accuracy in %'),
          'decisions': figures.decisions(results)})
