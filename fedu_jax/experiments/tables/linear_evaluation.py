"""The main table: linear probe of all methods, by data set and split."""

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments import published_numbers

METHODS = {
    'FedU': 'fedu', 'FedBYOL': 'fedbyol', 'FedEMA': 'fedema',
    'FedEMA, auto': 'fedema_auto', 'L-DAWA': 'ldawa', 'FedSimSiam': 'simsiam',
    'FedSimCLR': 'simclr', 'FedMoCo v1': 'moco', 'FedMoCo v2': 'moco_v2',
    'FedCA': 'fedca', 'FedSC': 'fedsc', 'BYOL, centralised': 'centralised',
    'supervised FedAvg': 'supervised'}
# Rows from FedU's own runs -> the network that is scored.
_REFERENCES = {'untrained': 'untrained', 'one client': 'alone0',
               'mean of clients alone': 'alone'}
# (row, split) that a scale leaves out. Scale cpu leaves out FedEMA and FedMoCo
# v1, which have newer variants. It has no mean of clients alone for IID images,
# because those clients are alike.
_LEFT_OUT = {
    'all': set[tuple[str, str]](),
    'some': {(row, 'IID') for row in (*METHODS, *_REFERENCES) if row not in (
        'FedU', 'BYOL, centralised', 'supervised FedAvg', 'untrained',
        'one client')} | {('FedEMA', 'non-IID'), ('FedMoCo v1', 'non-IID')},
    'few': {(row, 'non-IID') for row in ('FedBYOL', 'FedEMA', 'FedMoCo v2')}}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns the arms of the table."""
  arms = []
  left_out = _LEFT_OUT[scale.arms]
  for data in scale.data:
    for split, iid in (('non-IID', False), ('IID', True)):
      if iid and scale.arms == 'few':
        continue
      column = f'{data} {split}'
      start = plans.make(scale, data=data, iid=iid)
      arms += [plans.Arm(row, column, start, encoder)
               for row, encoder in _REFERENCES.items()
               if (row, split) not in left_out]
      for row, method in METHODS.items():
        if method == 'centralised' and not iid:
          continue  # one client has all images, so there is no split
        if (row, split) in left_out:
          continue
        arms.append(plans.Arm(
            row, column, plans.make(scale, method=method, data=data, iid=iid),
            protocols='classifier' if method == 'supervised' else ''))
  known = {(row, f'{data} {split}'): text
           for (row, data, split), text in published_numbers.LINEAR.items()}
  return plans.Plan(
      'Linear evaluation', arms, 'linear,knn',
      {'Linear probe': 'linear', "kNN on the projector's output": 'knn',
       'The classifier that was trained with labels': 'classifier'},
      known, f'{published_numbers.RESNET18}. What U measures of supervised '
      'FedAvg is not said.',
      lambda results: {'linear': figures.bars(
          results, 'linear', 'linear probe, accuracy in %')})
