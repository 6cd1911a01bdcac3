"""The nouns of an experiment: scales, arms, plans and what arms gave."""

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
from fedu_jax.training.config import registry


class Scale(NamedTuple):
  """How large the runs of an experiment are."""
  name: str
  caption: str  # what a table must say of it
  data: dict[str, str]  # what a data set is called -> its source
  base: Callable[[], ml_collections.ConfigDict]
  arms: str = 'all'  # or some, for the hours; few, for the minutes


def _cpu() -> ml_collections.ConfigDict:
  # Tried with one seed each on one core; linear probe and kNN in per cent of
  # FedU, and of one client alone:
  # - ResNet-18, untrained 31.5, 22.7. 40 rounds at a rate of 0.01: 29.3, 26.1,
  #   alone 31.8, 28.1. 60 rounds: 34.2, 28.9, alone 34.2, 27.4; with wider or
  #   narrower heads, a constant rate, or a decay of 0.99, 26 to 27 in kNN. 100
  #   rounds, 12 minutes: 36.4, 30.3, alone 35.7, 26.6.
  # - ResNet-10, 100 rounds, 6 minutes: 37 in kNN, alone 31.
  # So the shallower network, which learns in half the rounds at half the cost.
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
  """One cell of a table: a config, of which each seed is a run."""
  row: str
  column: str
  config: ml_collections.ConfigDict
  # Which of the run's networks is scored: 'federation', 'untrained', 'alone0'
  # and so on, or 'alone' for the mean of all clients that trained alone.
  encoder: str = 'federation'
  protocols: str = ''  # what it is asked besides what all are

  def folder(self, seed: int, runs: pathlib.Path) -> pathlib.Path:
    """Where a seed's run lies: cells of equal configs share it."""
    return runs / key_of(self.config, seed)

  def encoders(self) -> list[tuple[str, int]]:
    """Which networks of a run it scores, and after how many rounds."""
    config = self.config
    names = [f'alone{k}' for k in range(config.evaluation.alone)
             ] if self.encoder == 'alone' else [self.encoder]
    return [(name, 0 if name == 'untrained' else config.rounds)
            for name in names]


# A caption, and lines with the header first.
Table = tuple[str, list[list[str]]]


class Plan(NamedTuple):
  """An experiment at a scale."""
  title: str
  arms: list[Arm]
  protocols: str  # what `fedu_jax.evaluate` is asked
  tables: dict[str, str]  # a table's caption -> the score that it shows
  published: dict[tuple[str, str], str]  # (row, column) -> as printed
  source: str  # of the published numbers
  # (results) -> figures by name; drawn by `figures`
  draw: Callable[..., dict[str, Any]]
  # (results) -> further tables
  more: Callable[..., list[Table]] = lambda results: []
  layers: bool = False  # whether its figures show divergences by layer

  def asked_of(self, arm: Arm) -> str:
    """The protocols that one of its arms is asked."""
    return ','.join(filter(None, (self.protocols, arm.protocols)))


class Result(NamedTuple):
  """What the seeds of an arm gave."""
  arm: Arm
  scores: list[dict[str, float]]  # one a seed
  rounds: list[list[dict[str, Any]]]  # one a seed: the rows of metrics.jsonl
  folders: list[pathlib.Path]  # one a seed: the run's
  data_dir: str = ''


def make(scale: Scale, *, method: str = 'fedu', data: str, iid: bool = False,
         **changes: Any) -> ml_collections.ConfigDict:
  """Makes an arm's config.

  Args:
    scale: how large.
    method: a name of configs/methods.py.
    data: a name of `scale.data`.
    iid: deal the images out at random, not by class.
    **changes: fields by their dotted names, with '__' for '.'.
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
  if plain:  # its runs also serve the rows of clients alone
    config.evaluation.alone = (
        2 if scale.arms == 'few' else
        1 if scale.arms == 'some' and iid else config.clients)
  registry.check(config)
  return config


def key_of(config: ml_collections.ConfigDict, seed: int) -> str:
  """A folder's name for a config and seed: the same for equal ones.

  It is that of what differs from configs/cifar10.py, so that scores which an
  earlier version wrote are found though fields were added since. A field that
  was added counts as different if an earlier run had another value.
  """
  flat, usual = map(registry.flatten, (config, cifar10.get_config()))
  usual |= registry.ADDED
  changed = {name: value for name, value in flat.items()
             if name not in ('seed', *registry.PLACES)
             and (name not in usual or usual[name] != value)}
  text = json.dumps(changed, sort_keys=True)
  return f'{hashlib.sha256(text.encode()).hexdigest()[:12]}-seed{seed}'
