"""Checks a config before anything is touched, and turns its names into code.

A name in the config is a public function of the package, or a researcher's own
as 'package.module:function'. The keyword arguments that such a function takes
are fields of its section, so a new one needs no change here.
"""

from collections.abc import Callable
import difflib
import functools
import importlib
import inspect
import json
from typing import Any

import ml_collections

from fedu_jax import aggregation
from fedu_jax import augment
from fedu_jax import learners
from fedu_jax import losses
from fedu_jax import networks
from fedu_jax import participation
from fedu_jax import partition
from fedu_jax import rules
from fedu_jax import trees
from fedu_jax.errors import BadInput
from fedu_jax.fields import FIELDS

# Section -> where its name is looked up, and which names are meant to be used.
_NAMED = {
    'partition': (partition, ('by_class', 'iid', 'dirichlet', 'natural')),
    'sampling': (participation, ('uniform', 'by_size')),
    'model': (networks, ('resnet18', 'resnet50', 'resnet10', 'resnet6')),
    'learner': (learners, ('byol', 'simsiam', 'simclr', 'moco', 'fedca',
                           'fedsc', 'supervised')),
    'loss': (losses, ('regression_loss',)),
    'divergence': (trees, ('conv_distance', 'squared_distance')),
    'aggregation': (aggregation, ('fedavg', 'fedavg_target', 'ldawa',
                                  'fedca', 'fedsc')),
    'rule': (rules, ('dapu', 'global_predictor', 'local_predictor', 'fedema',
                     'fedema_auto', 'fedca', 'fedsc')),
}

# Where a run runs, which changes what it computes by rounding at most; and what
# stands there for one that is read from its folder.
PLACES = {'data.dir': '', 'devices': 'auto', 'devices_per_client': 1,
          'clients_per_device': 0, 'store': 'auto',
          'distributed.coordinator': '',
          'distributed.processes': 0, 'distributed.process': -1,
          'distributed.timeout': 100}
# What `program` binds to a section's function, beside its fields.
_BOUND = {'learner': ('make_tx', 'loss'), 'sampling': ('size',),
          'aggregation': ('add',)}


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the config as one dict from dotted names to values."""
  flat: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      flat |= {f'{key}.{name}': x for name, x in flatten(value).items()}
    else:
      flat[key] = value
  return flat


def check(config: ml_collections.ConfigDict) -> None:
  """Checks every field: its name, type, range, and whether they fit together.

  Raises:
    BadInput: naming the first field that is wrong, and what it must be.
  """
  flat = flatten(config)
  for name in FIELDS:
    if name not in flat:
      raise BadInput(f'the config lacks {name}: start from configs/cifar10.py')
  own = set()  # fields that a researcher's own function takes
  for section in _NAMED:
    if FIELDS[f'{section}.name'](flat[f'{section}.name']):
      raise BadInput(f'config.{section}.name must be a text')
    function = find(section, flat[f'{section}.name'])
    for name, parameter in _keywords(function).items():
      own.add(f'{section}.{name}')
      if (parameter.default is parameter.empty
          and name not in _BOUND.get(section, ())
          and f'{section}.{name}' not in flat):
        raise BadInput(f'config.{section}.name is '
                       f'{flat[section + ".name"]!r}, which needs a field '
                       f'config.{section}.{name}: add it in the config file')
  for name, value in flat.items():
    if name not in FIELDS:
      if name not in own:
        raise BadInput(f'unknown config field {name!r}'
                       + _meant(name, list(FIELDS)))
      continue
    if wanted := FIELDS[name](value):
      raise BadInput(f'config.{name} is {value!r}; it must be {wanted}')
  if config.cohort > config.clients:
    raise BadInput(f'config.cohort is {config.cohort}, but there are '
                   f'{config.clients} clients: at most that, or 0 for all')
  if config.batch_size % config.devices_per_client:
    raise BadInput(f'config.batch_size is {config.batch_size}, which '
                   f'{config.devices_per_client} devices cannot share evenly: '
                   'change it or devices_per_client')
  if config.evaluation.alone > config.clients:
    raise BadInput(f'config.evaluation.alone is {config.evaluation.alone}, but '
                   f'there are {config.clients} clients')
  kinds = 'learner', 'aggregation', 'rule'
  parts = [config[kind].name for kind in kinds]
  # What goes by the same name in all three is one method.
  for name in sorted(set.intersection(
      *(set(_NAMED[kind][1]) for kind in kinds))):
    if 0 < parts.count(name) < 3:
      raise BadInput(f'learner, aggregation and rule are {", ".join(parts)}: '
                     f'{name} is all three or none')
  enqueued = 2 * config.batch_size
  if config.learner.name == 'moco' and config.learner.queue_size % enqueued:
    raise BadInput(f'config.learner.queue_size is {config.learner.queue_size}; '
                   f'it must be a multiple of {enqueued}, twice batch_size')


def find(section: str, name: str) -> Callable[..., Any]:
  """Returns the function that a section's name stands for.

  Raises:
    BadInput: there is none; the message names the nearest and all choices.
  """
  module, names = _NAMED[section]
  if ':' not in name:
    if name not in names:
      raise BadInput(f'config.{section}.name is {name!r}'
                     + _meant(name, list(names))
                     + f'; choose {", ".join(names)}, or your own as '
                     'package.module:function')
    return getattr(module, name)
  path, _, attribute = name.partition(':')
  try:
    function = getattr(importlib.import_module(path), attribute)
    inspect.signature(function)
  except Exception as error:  # a researcher's module can raise anything
    raise BadInput(f'config.{section}.name is {name!r}, which cannot be '
                   f'imported as a function ({type(error).__name__}: {error})'
                   ) from error
  return function


def bind(config: ml_collections.ConfigDict, section: str,
         **more: Any) -> Callable[..., Any]:
  """Binds a section's function to those of its fields that it takes.

  Args:
    config: the whole config.
    section: such as 'rule'.
    **more: keyword arguments that are not fields; bound if it takes them.
  """
  function = find(section, config[section].name)
  offered = dict(config[section]) | more
  return functools.partial(function, **{
      name: offered[name] for name in _keywords(function) if name in offered})


def takes(config: ml_collections.ConfigDict, section: str, name: str) -> bool:
  """Whether a section's function has a keyword argument of this name."""
  return name in _keywords(find(section, config[section].name))


def view(config: ml_collections.ConfigDict) -> Callable[..., Any]:
  """Binds the distribution of views."""
  return augment.make_view(**dict(config.view))


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
  """Says field by field how two flat configs differ: 'rounds (3, not 5)'."""
  def shown(flat, name):
    return json.loads(json.dumps(flat.get(name, 'absent')))
  return [f'{name} ({shown(a, name)}, not {shown(b, name)})'
          for name in sorted(a.keys() | b.keys())
          if shown(a, name) != shown(b, name)]


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """The keyword-only arguments of a function."""
  return {name: parameter for name, parameter in
          inspect.signature(function).parameters.items()
          if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def _meant(name: str, names: list[str]) -> str:
  near = difflib.get_close_matches(name, names, 1)
  return f'; did you mean {near[0]!r}?' if near else ''
