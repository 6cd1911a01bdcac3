"""Uneven classes: the number of classes of a client, and Dirichlet's alpha."""

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments import published_numbers

METHODS = {'FedU': 'fedu', 'FedBYOL': 'fedbyol', 'FedSimSiam': 'simsiam'}
# Scale -> row -> numbers of classes, and alphas. Scale cpu has FedBYOL at both
# ends only: with two classes, seeds differ more than FedBYOL and FedU do.
SPREADS: dict[str, dict[str, tuple[tuple[int, ...], tuple[float, ...]]]] = {
    'smoke': {'FedU': ((2, 10), (1.0,))},
    'cpu': {'FedU': ((2, 4, 10), (0.1,)), 'FedBYOL': ((2, 10), ())},
    'paper': dict.fromkeys(
        METHODS, ((2, 4, 6, 8, 10), (0.1, 0.5, 1.0, 10.0)))}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns an arm for each method and spread of classes."""
  data = next(iter(scale.data))
  arms, known = [], {}
  for row, (classes, alphas) in SPREADS[scale.name].items():
    method = METHODS[row]
    for count in classes:
      column = f'{count} classes a client'
      arms.append(plans.Arm(row, column, plans.make(
          scale, method=method, data=data,
          partition__classes_per_client=count)))
    for alpha in alphas:
      arms.append(plans.Arm(row, f'Dirichlet {alpha:g}', plans.make(
          scale, method=method, data=data, partition__name='dirichlet',
          partition__alpha=alpha,
          partition__min_examples=2 * scale.base().batch_size)))
  known['FedU', '2 classes a client'] = published_numbers.LINEAR[
      'FedU', 'CIFAR-10', 'non-IID']
  for count, (byol, simsiam) in published_numbers.CLASSES.items():
    known['FedBYOL', f'{count} classes a client'] = byol
    known['FedSimSiam', f'{count} classes a client'] = simsiam
  return plans.Plan(
      'Heterogeneity', arms, 'linear,knn',
      {'Linear probe': 'linear', "kNN on the projector's output": 'knn'},
      known, f'{published_numbers.RESNET18}; CIFAR-10. Of Dirichlet draws '
      'those count that leave every client two batches, which the most uneven '
      'do not.',
      lambda results: {'heterogeneity': figures.lines(
          results, 'linear', 'linear probe, accuracy in %')})
