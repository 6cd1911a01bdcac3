"""How far clients drift in a round: by round, client, layer and split."""

from fedu_jax.experiments import figures
from fedu_jax.experiments import plan as plans


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns FedU with both splits."""
  data = next(iter(scale.data))
  arms = [plans.Arm(f'FedU, {split}', data, plans.make(
      scale, data=data, iid=split == 'IID')) for split in ('IID', 'non-IID')]
  return plans.Plan(
      'Divergence', arms, 'linear', {'Linear probe': 'linear'}, {},
      'Zhuang et al. 2022, figure 6 (pixels, ± 0.02; FedEMA): 0.87 to 0.98 in '
      'the first round, 0.66 to 0.76 in the 20th, 0.25 in the 80th.',
      lambda results: {'divergence': figures.divergences(results),
                       'layers': figures.layers(results)})
