"""The drift of clients in local training: by round, client, layer and split."""

import numpy as np

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments import published_numbers
from fedu_jax.experiments import spread


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns an arm of FedU for each split."""
  data = next(iter(scale.data))
  arms = [plans.Arm(f'FedU, {split}', data, plans.make(
      scale, data=data, iid=split == 'IID')) for split in ('IID', 'non-IID')]
  return plans.Plan(
      'Divergence', arms, 'linear', {'Linear probe': 'linear'}, {},
      f'{published_numbers.SOURCES}.',
      lambda results: {'divergence': figures.divergences(results),
                       'layers': figures.layers(results)}, _by_round,
      layers=True)


def _by_round(results: list[plans.Result]) -> list[plans.Table]:
  """The table of clients' mean divergences in some rounds, with FedEMA's."""
  last = len(results[0].rounds[0])
  chosen = [x for x in published_numbers.DIVERGENCE if x <= last]
  lines = [['', *(f'round {x}' for x in chosen)]]
  for result in results:
    lines.append([result.arm.row, *(spread.as_text([
        np.mean(rows[x - 1]['clients']['divergence'])
        for rows in result.rounds]) for x in chosen)])
  lines.append(['FedEMA, published', *(
      f'[{published_numbers.DIVERGENCE[x]}]' for x in chosen)])
  return [('Divergence, mean over clients (mean L2 norm over layers)', lines)]
