"""The picture of representations for the upload and update choices."""

from typing import Any

from fedu_jax.experiments import figures
from fedu_jax.experiments import plan as plans

_ARMS: dict[str, tuple[dict[str, Any], str]] = {
    'untrained': ({}, 'untrained'), 'one client': ({}, 'alone0'),
    'FedU': ({}, 'federation'),
    'update both': ({'rule__name': 'global_predictor', 'rule__updates': 'both'},
                    'federation'),
    'update target': ({'rule__name': 'global_predictor',
                       'rule__updates': 'target'}, 'federation'),
    'aggregate target': ({'rule__name': 'global_predictor',
                          'aggregation__name': 'fedavg_target'}, 'federation')}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns the networks whose features are drawn, non-IID."""
  data = next(iter(scale.data))
  arms = [plans.Arm(row, data, plans.make(scale, data=data, **changes), encoder)
          for row, (changes, encoder) in _ARMS.items()]
  return plans.Plan(
      'Representations', arms, 'linear,geometry',
      {'Linear probe': 'linear', 'Alignment (lower is better)': 'alignment',
       'Uniformity (lower is better)': 'uniformity'}, {},
      'the picture exists (Zhuang et al. 2021); it has no numbers.',
      lambda results: {'tsne': figures.embeddings(results)})
