"""Every field of a config, and what its value must be."""

from collections.abc import Callable
import functools
import math
from typing import Any

from fedu_jax import rounds
from fedu_jax import rules
from fedu_jax.learners.byol import FIRST_TARGETS

SCHEDULES = ('cosine', 'constant')  # of the learning rate, over the rounds

Check = Callable[[Any], str]  # what the value must be, if it is not; else ''


def _number(kind: type, low: float, high: float = math.inf,
            above: bool = False) -> Check:
  def check(value):
    right = isinstance(value, (int, float) if kind is float else int)
    if isinstance(value, bool) or not right or not (
        math.isfinite(value) and (low < value if above else low <= value)
        and value <= high):
      noun = 'a whole number' if kind is int else 'a number'
      bound = f' above {low:g}' if above else f' from {low:g}'
      return noun + bound + (f' to {high:g}' if high < math.inf else '')
    return ''
  return check


def _text(value):
  return '' if isinstance(value, str) else 'a text'


def _one_of(*choices):
  return lambda value: ('' if value in choices and type(value) is type(
      choices[0]) else 'one of ' + ', '.join(map(str, choices)))


def _range(low: float, high: float) -> Check:
  def check(value):
    right = (isinstance(value, tuple) and len(value) == 2
             and not any(_number(float, low, high, True)(x) for x in value)
             and value[0] <= value[1])
    return '' if right else (
        f'two numbers (low, high) above {low:g}, up to {high:g}')
  return check


_count = functools.partial(_number, int)
_real = functools.partial(_number, float)
_flag = _one_of(False, True)


def _devices(value):  # a text, since a flag keeps the type of what it changes
  right = value == 'auto' or isinstance(value, str) and (
      value.isdecimal() and int(value) > 0)
  return '' if right else 'auto, or a whole number from 1 as a text'


def _coordinator(value):
  host, _, port = value.rpartition(':') if isinstance(value, str) else '   '
  right = value in ('', 'auto') or host and port.isdecimal() and (
      0 < int(port) < 65536)
  return '' if right else "'', auto, or the host:port of process 0"


FIELDS: dict[str, Check] = {
    'seed': _count(0, 2**32 - 1),
    'rounds': _count(1),
    'local_epochs': _count(1),
    'batch_size': _count(2),
    'clients': _count(1),
    'cohort': _count(0),
    'sampling.name': _text,
    'participation.dropout': _real(0, 1),
    'participation.stragglers': _real(0, 1),
    'participation.least': _real(0, 1, above=True),
    'devices': _devices,
    'devices_per_client': _count(1),
    'clients_per_device': _count(0),
    'store': _one_of('auto', 'device', 'host', 'disk'),
    'distributed.coordinator': _coordinator,
    'distributed.processes': _count(0),
    'distributed.process': _count(-1),
    'distributed.timeout': _count(1),
    'execution': _one_of(*rounds.EXECUTIONS),
    'data.source': _text,
    'data.dir': _text,
    'data.image_size': _count(0, 4096),
    'data.max_examples': _count(0),
    'partition.name': _text,
    'partition.classes_per_client': _count(1),
    'partition.alpha': _real(0, above=True),
    'partition.min_examples': _count(0),
    'model.name': _text,
    'model.width': _count(1),
    'model.hidden': _count(1),
    'model.features': _count(1),
    'model.projector_layers': _count(0, 2),
    'model.predictor_layers': _count(0, 2),
    'model.dtype': _one_of('float32', 'bfloat16'),
    'view.scale': _range(0, 1),
    'view.ratio': _range(0, 1e3),
    'view.flip': _real(0, 1),
    'view.jitter': _real(0, 1),
    'view.brightness': _real(0),
    'view.contrast': _real(0),
    'view.saturation': _real(0),
    'view.hue': _real(0, 0.5),
    'view.greyscale': _real(0, 1),
    'learner.name': _text,
    'learner.decay': _real(0, 1),
    'learner.first_target': _one_of(*FIRST_TARGETS),
    'learner.stop_gradient': _flag,
    'learner.ema': _flag,
    'learner.temperature': _real(0, above=True),
    'learner.queue_size': _count(1),
    'loss.name': _text,
    'divergence.name': _text,
    'optimizer.learning_rate': _real(0),
    'optimizer.momentum': _real(0, 1),
    'optimizer.weight_decay': _real(0),
    'optimizer.schedule': _one_of(*SCHEDULES),
    'aggregation.name': _text,
    'rule.name': _text,
    'rule.threshold': _real(0),
    'rule.scale': _real(0),
    'rule.tau': _real(0),
    'rule.updates': _one_of(*rules.UPDATES),
    'rule.reset_missed': _flag,
    'evaluation.every': _count(0),
    'evaluation.alone': _count(0),
    'evaluation.knn_neighbours': _count(1),
    'evaluation.knn_temperature': _real(0, above=True),
    'evaluation.probe_epochs': _count(1),
    'evaluation.probe_batch_size': _count(1),
    'evaluation.probe_learning_rate': _real(0, above=True),
    'evaluation.probe_standardise': _flag,
    'evaluation.labels_per_class': _count(0),
    'evaluation.few_draws': _count(1),
    'evaluation.semi_hidden': _count(1),
    'evaluation.semi_epochs': _count(1),
    'checkpoint.every': _count(1),
    'checkpoint.keep': _count(1),
}
