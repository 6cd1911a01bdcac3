"""Published accuracies by linear probe, in per cent, each with its source.

U and E name the sources. The papers do not say whether U's single client and
E's Standalone are one client or a mean over clients; here the first counts as
one client, and the second as a mean. U does not say whether supervised FedAvg
is measured by a probe or by its own classifier.
"""

SOURCES = 'U: Zhuang et al. 2021 (poster); E: Zhuang et al. 2022'
# The main tables name the network; U's ablation and its bars do not.
RESNET18 = f'{SOURCES}; both of ResNet-18 where nothing else is said'
UNSAID = f"{SOURCES}; U's network, data, split and rounds are not printed"

_CELLS = [(data, split) for data in ('CIFAR-10', 'CIFAR-100')
          for split in ('IID', 'non-IID')]
# Method -> the number printed for each of these cells; '' if none is.
_RESNET18 = {
    'one client': ('81.24', '71.98', '51.33', '49.69'),
    'FedU': ('85.21', '78.71', '56.52', '57.08')}
_RESNET50 = {
    'one client': ('83.16', '77.84', '57.21', '55.16'),
    'FedSimCLR': ('68.10', '64.06', '39.75', '38.70'),
    'FedCA': ('71.25', '68.01', '43.30', '42.34'),
    'FedSimSiam': ('79.64', '76.70', '46.28', '48.80'),
    'FedU': ('86.48', '83.25', '59.51', '61.94'),
    'supervised FedAvg': ('91.51', '67.74', '65.77', '64.38'),
    'BYOL, centralised': ('91.85', '', '66.51', '')}
# Tables 1 and 3.
_FEDEMA = {
    'mean of clients alone': (
        '82.42 ± 0.32', '74.95 ± 0.66', '53.88 ± 2.24', '52.37 ± 0.93'),
    'FedBYOL': ('84.29 ± 0.18', '79.44 ± 0.99', '54.24 ± 0.24', '57.51 ± 0.09'),
    'FedU': ('83.96 ± 0.18', '80.52 ± 0.21', '54.82 ± 0.67', '57.21 ± 0.31'),
    'FedEMA': ('85.59 ± 0.25', '82.77 ± 0.08', '57.86 ± 0.15', '61.21 ± 0.54'),
    'FedEMA, auto': (
        '86.26 ± 0.26', '83.34 ± 0.39', '58.55 ± 0.34', '61.78 ± 0.14'),
    'FedSimCLR': ('', '78.09 ± 0.14', '', '55.58 ± 0.13'),
    'FedMoCo v1': ('', '78.21 ± 0.04', '', '56.98 ± 0.29'),
    'FedMoCo v2': ('', '79.14 ± 0.13', '', '57.47 ± 0.65'),
    'FedSimSiam': ('', '76.27 ± 0.18', '', '48.94 ± 0.22'),
    'BYOL, centralised': ('90.46 ± 0.34', '', '65.54 ± 0.47', '')}


def _linear() -> dict[tuple[str, str, str], str]:
  found: dict[tuple[str, str, str], str] = {}
  for table, text in ((_RESNET18, 'U {}'), (_RESNET50, 'U {} (ResNet-50)'),
                      (_FEDEMA, 'E {}')):
    for method, row in table.items():
      for cell, number in zip(_CELLS, row, strict=True):
        if number:
          key = (method, *cell)
          found[key] = '; '.join(
              filter(None, (found.get(key), text.format(number))))
  return found


LINEAR = _linear()  # (method, data, split) -> with sources

# (aggregate, update, predictor): U's ablation.
PROTOCOL = {
    ('online', 'online', 'global'): 'U 84.07',
    ('online', 'online', 'local'): 'U 82.18',
    ('online', 'target', 'global'): 'U 9.99',
    ('online', 'target', 'local'): 'U 19.22',
    ('online', 'both', 'global'): 'U 81.24',
    ('online', 'both', 'local'): 'U 18.23',
    ('target', 'online', 'global'): 'U 82.10',
    ('target', 'online', 'local'): 'U 78.06',
    ('target', 'target', 'global'): 'U 9.99',
    ('target', 'target', 'local'): 'U 25.02',
    ('target', 'both', 'global'): 'U 82.32',
    ('target', 'both', 'local'): 'U 29.03',
}

# (predictor, data): U's bars. Numbers that its ablation lacks are read off the
# pixels, to 0.1. The setting is not printed.
PREDICTOR = {
    ('local', 'CIFAR-10'): 'U 82.18', ('local', 'CIFAR-100'): 'U ~61.7',
    ('global', 'CIFAR-10'): 'U 84.07', ('global', 'CIFAR-100'): 'U ~63.3',
    ('DAPU', 'CIFAR-10'): 'U ~87.1', ('DAPU', 'CIFAR-100'): 'U ~68.0'}

# E's table 2, CIFAR-10: classes per client -> (FedBYOL, FedSimSiam).
CLASSES = {2: ('E 79.44', 'E 76.27'), 4: ('E 82.82', 'E 79.34'),
           6: ('E 83.02', 'E 80.17'), 8: ('E 84.57', 'E 80.92'),
           10: ('E 84.20', 'E 80.50')}

# Round, from 1 -> a client's divergence in FedEMA on CIFAR-10, non-IID, read
# off E's figure 6, to 0.02. E does not say whether the figure scales it.
DIVERGENCE = {1: 'E 0.87 to 0.98', 21: 'E 0.66 to 0.76', 51: 'E ~0.62',
              81: 'E ~0.25', 100: 'E ~0'}
