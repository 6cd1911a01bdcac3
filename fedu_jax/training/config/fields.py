"""All fields of a config, each with a check of its value.

Each number has an upper bound, so that it does not overflow int32 or float32,
and so that sizes that fit no machine are refused at once. Checks that need the
data or the devices are made later, where these are known.
"""

from collections.abc import Callable
import functools
from typing import Any

from fedu_jax.core import rounds
from fedu_jax.core import update_rules
from fedu_jax.data import dataset
from fedu_jax.data import image_files
from fedu_jax.data import sources
from fedu_jax.learners.byol import FIRST_TARGETS
from fedu_jax.models import convolution

SCHEDULES = ('cosine', 'constant')  # of the learning rate, over the rounds

Check = Callable[[Any], str]  # '' for a right value; else what it must be

_MANY = 10**9  # the largest count, which fits int32
_CLIENTS = 10**6  # the most clients; each has a row in tables and files
_UNITS = 2**17  # the most units of a layer; more are likely a typing error
_FACTOR = 1e6  # the largest factor of a float32


def _number(kind: type, low: float, high: float, above: bool = False) -> Check:
  def check(value):
    right = isinstance(value, (int, float) if kind is float else int)
    # The comparisons are False for NaN.
    if isinstance(value, bool) or not right or not (
        (low < value if above else low <= value) and value <= high):
      noun = 'a whole number' if kind is int else 'a number'
      return f'{noun} {"above" if above else "from"} {low:g} to {high:.10g}'
    return ''
  return check


def _text(value):
  return '' if isinstance(value, str) and value else 'a text'


def _folder(value):
  return '' if isinstance(value, str) else "the path of a folder, or ''"


def _one_of(*choices):
  return lambda value: (
      '' if type(value) is type(choices[0]) and value in choices
      else 'one of ' + ', '.join(map(str, choices)))


def _range(low: float, high: float) -> Check:
  def check(value):
    right = (isinstance(value, tuple) and len(value) == 2
             and not any(map(_number(float, low, high), value))
             and value[0] <= value[1])
    return '' if right else f'two numbers (low, high) from {low:g} to {high:g}'
  return check


_count = functools.partial(_number, int)
_real = functools.partial(_number, float)
_flag = _one_of(False, True)


def _digits(text: str, most: int) -> bool:
  return len(text) < 10 and text.isdecimal() and 0 < int(text) <= most


def _devices(value):  # a text, because a flag cannot change a field's type
  right = isinstance(value, str) and (
      value == 'auto' or _digits(value, _CLIENTS))
  return '' if right else (
      f'auto, or a whole number from 1 to {_CLIENTS} as a text')


def _coordinator(value):
  host, _, port = value.rpartition(':') if isinstance(value, str) else '   '
  right = isinstance(value, str) and (
      value in ('', 'auto') or host and _digits(port, 2**16 - 1))
  return '' if right else "'', auto, or the host:port of process 0"


def _names(value):
  right = isinstance(value, str) and (
      not value or all(x.strip(' /') for x in value.split(',')))
  return '' if right else "names of folders, such as 'test,val', or ''"


def _source(value):
  return '' if isinstance(value, str) and sources.known(value) else (
      sources.CHOICES)


FIELDS: dict[str, Check] = {
    'seed': _count(0, 2**32 - 1),
    'rounds': _count(1, _MANY),
    'local_epochs': _count(1, 10**4),
    'batch_size': _count(2, 2**20),
    'clients': _count(1, _CLIENTS),
    'cohort': _count(0, _CLIENTS),
    'sampling.name': _text,
    'participation.dropout': _real(0, 1),
    'participation.stragglers': _real(0, 1),
    'participation.least': _real(0, 1, above=True),
    'devices': _devices,
    'devices_per_client': _count(1, _CLIENTS),
    'clients_per_device': _count(0, _CLIENTS),
    'store': _one_of('auto', 'device', 'host', 'disk'),
    'distributed.coordinator': _coordinator,
    'distributed.processes': _count(0, _CLIENTS),
    'distributed.process': _count(-1, _CLIENTS),
    'distributed.timeout': _count(1, 10**6),
    'execution': _one_of(*rounds.EXECUTIONS),
    'data.source': _source,
    'data.dir': _folder,
    'data.image_size': _count(0, 4096),
    'data.fit': _one_of(*image_files.FITS),
    'data.depth': _one_of(*image_files.DEPTHS),
    'data.colours': _one_of(*image_files.COLOURS),
    'data.leave_out': _names,
    'data.max_examples': _count(0, _MANY),
    'partition.name': _text,
    'partition.classes_per_client': _count(1, dataset.MOST_CLASSES),
    'partition.alpha': _real(0, _FACTOR, above=True),
    'partition.min_examples': _count(0, _MANY),
    'model.name': _text,
    'model.width': _count(1, 4096),
    'model.hidden': _count(1, _UNITS),
    'model.features': _count(1, _UNITS),
    'model.projector_layers': _count(0, 2),
    'model.predictor_layers': _count(0, 2),
    'model.dtype': _one_of('float32', 'bfloat16'),
    'model.convolution': _one_of(*convolution.CONVOLUTIONS),
    'view.scale': _range(1e-6, 1),
    'view.ratio': _range(1e-3, 1e3),
    'view.flip': _real(0, 1),
    'view.jitter': _real(0, 1),
    'view.brightness': _real(0, 1e3),
    'view.contrast': _real(0, 1e3),
    'view.saturation': _real(0, 1e3),
    'view.hue': _real(0, 0.5),
    'view.greyscale': _real(0, 1),
    'view.eight_bit': _flag,
    'learner.name': _text,
    'learner.decay': _real(0, 1),
    'learner.first_target': _one_of(*FIRST_TARGETS),
    'learner.stop_gradient': _flag,
    'learner.ema': _flag,
    'learner.temperature': _real(1e-3, _FACTOR),
    'learner.queue_size': _count(1, 10**7),
    'loss.name': _text,
    'divergence.name': _text,
    'optimizer.learning_rate': _real(0, _FACTOR),
    'optimizer.momentum': _real(0, 1),
    'optimizer.weight_decay': _real(0, _FACTOR),
    'optimizer.schedule': _one_of(*SCHEDULES),
    'aggregation.name': _text,
    'rule.name': _text,
    'rule.threshold': _real(0, 1e30),  # 1e30: always the global predictor
    'rule.scale': _real(0, _FACTOR),
    'rule.tau': _real(0, _FACTOR),
    'rule.updates': _one_of(*update_rules.UPDATES),
    'rule.reset_missed': _flag,
    'evaluation.every': _count(0, _MANY),
    'evaluation.alone': _count(0, _CLIENTS),
    'evaluation.knn_neighbours': _count(1, _MANY),
    # A neighbour's weight, exp(1 / temperature), must not overflow.
    'evaluation.knn_temperature': _real(0.02, _FACTOR),
    'evaluation.probe_epochs': _count(1, 10**6),
    'evaluation.probe_batch_size': _count(1, _MANY),
    'evaluation.probe_learning_rate': _real(0, _FACTOR, above=True),
    'evaluation.probe_standardise': _flag,
    'evaluation.labels_per_class': _count(0, _MANY),
    'evaluation.few_draws': _count(1, 10**4),
    'evaluation.semi_hidden': _count(1, _UNITS),
    'evaluation.semi_epochs': _count(1, 10**6),
    'checkpoint.every': _count(1, _MANY),
    'checkpoint.keep': _count(1, _MANY),
}
