"""The parts of an experiment: scales, arms, plans and results."""

from collections.abc import Callable
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import ml_collections

from fedu_jax.configs import cifar10
from fedu_jax.configs import cifar10_small
from fedu_jax.configs import methods
from fedu_jax.configs import smoke
from fedu_jax.training.config import checks


class Scale(NamedTuple):
  """The size of an experiment's runs."""
  name: str
  caption: str  # printed under the tables
  data: dict[str, str]  # the name of a data set -> its source
  base: Callable[[], ml_collections.ConfigDict]
  arms: str = 'all'  # or 'some', for scale cpu; 'few', for scale smoke


def _cpu() -> ml_collections.ConfigDict:
  # Trials on one core with one seed each. Accuracies in per cent, linear probe
  # and kNN, for FedU and for one client alone:
  # - ResNet-18, untrained: 31.5, 22.7. 40 rounds at a rate of 0.01: 29.3, 26.1,
  #   alone 31.8, 28.1. 60 rounds: 34.2, 28.9, alone 34.2, 27.4; with wider or
  #   narrower heads, a constant rate, or a decay of 0.99, 26 to 27 by kNN. 100
  #   rounds, 12 minutes: 36.4, 30.3, alone 35.7, 26.6.
  # - ResNet-10, 100 rounds, 6 minutes: 37 by kNN, alone 31.
  # The shallower network learns in half the rounds at half the cost.
  config = cifar10_small.get_config()
  config.rounds = 100
  config.model.width = 8
  config.model.hidden = 256
  config.model.features = 128
  config.evaluation.every = 0
  config.evaluation.alone = 0
  config.evaluation.labels_per_class = 0
  config.evaluation.semi_hidden = 256
  config.view.eight_bit = False  # as the runs in benchmarks/results/cpu
  return config


SCALES = {
    'smoke': Scale(
        'smoke', '400 digits of 8 pixels, a ResNet-6 of width 2, 2 rounds of '
        'one epoch: shows that it runs, and nothing else',
        {'digits': 'digits'}, smoke.get_config,
        arms='few'),
    'cpu': Scale(
        'cpu', '10,000 images of 16 pixels, a ResNet-10 of width 8 with heads '
        'of 256 and 128 units, 100 rounds of one epoch, batches of 32, a rate '
        "of 0.03; moving averages of 0.98 (BYOL's target begins as a copy, "
        "MoCo's decay is the same), crops of a fifth at least, half the "
        'colour jitter; probes on standardised features, in batches of 512',
        {'CIFAR-10': 'tfds:cifar10'}, _cpu, arms='some'),
    'paper': Scale(
        'paper', 'configs/cifar10.py: 50,000 images of 32 pixels, a ResNet-18 '
        'of width 64, 100 rounds of five epochs',
        {'CIFAR-10': 'tfds:cifar10', 'CIFAR-100': 'tfds:cifar100'},
        cifar10.get_config)}


class Arm(NamedTuple):
  """One cell of a table: a config, with one run for each seed."""
  row: str
  column: str
  config: ml_collections.ConfigDict
  # The network of the run that is scored: 'federation', 'untrained', 'alone0'
  # and so on, or 'alone' for the mean of all clients that trained alone.
  encoder: str = 'federation'
  protocols: str = ''  # added to the protocols of the plan

  def folder(self, seed: int, runs: pathlib.Path) -> pathlib.Path:
    """The folder of a seed's run. Cells with equal configs share it."""
    return runs / key_of(self.config, seed)

  def encoders(self) -> list[tuple[str, int]]:
    """The networks of a run that are scored, each with its rounds."""
    config = self.config
    names = [f'alone{k}' for k in range(config.evaluation.alone)
             ] if self.encoder == 'alone' else [self.encoder]
    return [(name, 0 if name == 'untrained' else config.rounds)
            for name in names]


# (caption, lines); the first line is the header.
Table = tuple[str, list[list[str]]]


class Plan(NamedTuple):
  """An experiment at a scale."""
  title: str
  arms: list[Arm]
  protocols: str  # as for `fedu_jax.evaluate`
  tables: dict[str, str]  # a table's caption -> the score that it shows
  published: dict[tuple[str, str], str]  # (row, column) -> as printed
  source: str  # where the published numbers are from
  # (results) -> figures by name, made with `figures`
  draw: Callable[..., dict[str, Any]]
  # (results) -> more tables
  more: Callable[..., list[Table]] = lambda results: []
  layers: bool = False  # whether its figures show divergences by layer

  def asked_of(self, arm: Arm) -> str:
    """The protocols that score an arm."""
    return ','.join(filter(None, (self.protocols, arm.protocols)))


class Result(NamedTuple):
  """The results of an arm; each list has one entry for each seed."""
  arm: Arm
  scores: list[dict[str, float]]
  rounds: list[list[dict[str, Any]]]  # the rows of metrics.jsonl
  folders: list[pathlib.Path]  # the runs' folders
  data_dir: str = ''


def make(scale: Scale, *, method: str = 'fedu', data: str, iid: bool = False,
         **changes: Any) -> ml_collections.ConfigDict:
  """Makes the config of an arm.

  Args:
    scale: the size of its runs.
    method: a name in configs/methods.py.
    data: a name in `scale.data`.
    iid: whether to divide images at random and not by class.
    **changes: values of fields, by dotted names with '__' in place of '.'.
  """
  config = scale.base()
  config.data.source = scale.data[data]
  if config.data.source.endswith('100'):
    config.partition.classes_per_client = 20
  if iid:
    config.partition.name = 'iid'
  methods.METHODS[method](config)
  plain = method == 'fedu'
  for name, value in changes.items():
    *sections, last = name.split('__')
    place = config
    for section in sections:
      place = place[section]
    plain = plain and place[last] == value
    place[last] = value
  if plain:  # its runs also score clients that train alone
    config.evaluation.alone = (
        2 if scale.arms == 'few' else
        1 if scale.arms == 'some' and iid else config.clients)
  checks.check(config)
  return config


def key_of(config: ml_collections.ConfigDict, seed: int) -> str:
  """Returns the name of a run's folder, made from its config and seed.

  It is a hash of the differences from configs/cifar10.py. So the runs of
  earlier versions are found, although fields were added since. An added field
  counts as a difference if its value is not the one that earlier runs had.
  """
  flat, usual = map(checks.flatten, (config, cifar10.get_config()))
  usual |= checks.ADDED
  changed = {name: value for name, value in flat.items()
             if name not in ('seed', *checks.PLACES)
             and (name not in usual or usual[name] != value)}
  text = json.dumps(changed, sort_keys=True)
  return f'{hashlib.sha256(text.encode()).hexdigest()[:12]}-seed{seed}'
