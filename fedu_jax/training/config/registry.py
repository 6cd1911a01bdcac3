"""Checks a config, and binds the functions that it names to its values.

A name in the config stands for a piece, see `pieces`. The keyword arguments of
its function are fields of its section, so a new argument needs no change here.
"""

from collections.abc import Callable
import functools
import json
from typing import Any

import ml_collections

from fedu_jax.core.method import Aggregation, Method, UpdateRule
from fedu_jax.data import sources
from fedu_jax.learners import augment
from fedu_jax.runtime import suggest
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config import compatibility
from fedu_jax.training.config import pieces
from fedu_jax.training.config.fields import FIELDS

# The fields that say where a run runs. They change results by rounding at most.
# The values are those of a run that is read from its folder.
PLACES = {'data.dir': '', 'devices': 'auto', 'devices_per_client': 1,
          'clients_per_device': 0, 'store': 'auto',
          'distributed.coordinator': '',
          'distributed.processes': 0, 'distributed.process': -1,
          'distributed.timeout': 100}
# A field that a later version added -> the value that all earlier runs had. It
# may differ from today's default; earlier runs can therefore resume.
ADDED: dict[str, Any] = {
    'data.fit': 'crop', 'data.depth': 0, 'data.colours': 'stored',
    'data.leave_out': '',
    'view.eight_bit': False, 'model.convolution': 'fast'}
# The arguments of a section's function that code binds, not fields.
_BOUND = {'learner': ('make_tx', 'loss'), 'sampling': ('size',),
          'aggregation': ('add',)}


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the config as one dict from dotted names to values."""
  flat: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict) and len(value):
      flat |= {f'{key}.{name}': x for name, x in flatten(value).items()}
    else:
      flat[key] = value
  return flat


class Checked(ml_collections.FrozenConfigDict):
  """A config that has passed `check` and cannot be changed."""


def checked(config: ml_collections.ConfigDict) -> Checked:
  """Checks a config, unless that has been done.

  Raises:
    BadInput: as in `check`.
  """
  if isinstance(config, Checked):
    return config
  check(config)
  return Checked(config)


def check(config: ml_collections.ConfigDict) -> None:
  """Checks all fields: names, types, ranges, and whether they fit together.

  It reads no data, and imports a researcher's own modules.

  Raises:
    BadInput: a field is wrong; the message names the first, and what it must
      be.
  """
  if not isinstance(config, ml_collections.ConfigDict):
    raise BadInput(f'the config is {_shown(config)}, not a ConfigDict: start '
                   'from configs/cifar10.py')
  try:
    flat = flatten(config)
  except Exception as error:  # a placeholder without a value, or a cycle
    raise BadInput(f'the config cannot be read ({type(error).__name__}: '
                   f'{error})') from error
  for name in FIELDS:
    if name not in flat:
      raise BadInput(f'the config lacks {name}: start from configs/cifar10.py')
  own = _own_fields(flat)
  for name, value in flat.items():
    if name in FIELDS:
      if wanted := FIELDS[name](value):
        raise BadInput(
            f'config.{name} is {_shown(value)}; it must be {wanted}')
    elif name not in own:
      raise BadInput(f'unknown config field {name!r}'
                     + suggest.meant(name, FIELDS))
    elif not _plain(value):
      raise BadInput(f'config.{name} is {_shown(value)}, which config.json '
                     'cannot hold; it must be a number, a text, a flag, None, '
                     'or a tuple of such')
  named = {flat[f'{kind}.name']: kind for kind in compatibility.KINDS}
  compatibility.check(
      flat, labelled=labelled(config),
      belongs={name: pieces.belongs(pieces.raw(kind, name))
               for name, kind in named.items()},
      suits=method(config).check)


def _own_fields(flat: dict[str, Any]) -> set[str]:
  """The fields that the config's functions take, a researcher's own too."""
  fields = set()
  for section in pieces.SECTIONS:
    chosen = flat[f'{section}.name']
    if wanted := FIELDS[f'{section}.name'](chosen):
      raise BadInput(f'config.{section}.name is {_shown(chosen)}; it must be '
                     f'{wanted}')
    for name, parameter in pieces.keywords(
        pieces.function(section, chosen)).items():
      fields.add(f'{section}.{name}')
      if (parameter.default is parameter.empty
          and name not in _BOUND.get(section, ())
          and f'{section}.{name}' not in flat):
        raise BadInput(f'config.{section}.name is {chosen!r}, which needs a '
                       f'field config.{section}.{name}: add it in the config '
                       'file')
  return fields | _own_fields_of_data(flat)


def _own_fields_of_data(flat: dict[str, Any]) -> set[str]:
  """The fields that a researcher's own data.source takes."""
  source = flat['data.source']
  if FIELDS['data.source'](source) or not (own := sources.function(source)):
    return set()
  fields = {f'data.{name}': parameter for name, parameter
            in pieces.keywords(own).items() if name != 'lazy'}
  for name, parameter in fields.items():
    if parameter.default is parameter.empty and name not in flat:
      raise BadInput(f'config.data.source is {source!r}, which needs a field '
                     f'config.{name}: add it in the config file')
  return set(fields)


def labelled(config: ml_collections.ConfigDict) -> bool:
  """Whether the learner trains on labels: the supervised upper bound."""
  return method(config).labelled


def functions(config: ml_collections.ConfigDict) -> tuple[Callable, ...]:
  """Returns the functions that the config names, as they are imported now."""
  return tuple(pieces.function(section, config[section].name)
               for section in pieces.SECTIONS)


def bind(config: ml_collections.ConfigDict, section: str,
         **more: Any) -> Callable[..., Any]:
  """Binds a section's function to the fields that it takes as arguments.

  Args:
    config: the whole config.
    section: a section, such as 'rule'.
    **more: keyword arguments that are no fields; bound if it takes them.
  """
  function = pieces.function(section, config[section].name)
  offered = dict(config[section]) | more
  return functools.partial(function, **{
      name: offered[name] for name in pieces.keywords(function)
      if name in offered})


def method(config: ml_collections.ConfigDict) -> Method:
  """Returns the record of the learner's method; its function is not bound."""
  found: Method = pieces.find('learner', config.learner.name)
  return found


def aggregation(config: ml_collections.ConfigDict, **more: Any) -> Aggregation:
  """Returns the aggregation with its function bound, see `bind`."""
  found: Aggregation = pieces.find('aggregation', config.aggregation.name)
  return found._replace(fn=bind(config, 'aggregation', **more))


def rule(config: ml_collections.ConfigDict) -> UpdateRule:
  """Returns the update rule with its function bound, see `bind`."""
  found: UpdateRule = pieces.find('rule', config.rule.name)
  return found._replace(fn=bind(config, 'rule'))


def takes(config: ml_collections.ConfigDict, section: str, name: str) -> bool:
  """Whether a section's function has a keyword argument of this name."""
  return name in pieces.keywords(
      pieces.function(section, config[section].name))


def view(config: ml_collections.ConfigDict) -> Callable[..., Any]:
  """Binds the view to the fields of config.view."""
  return augment.make_view(**dict(config.view))


def complete(flat: dict[str, Any]) -> dict[str, Any]:
  """Adds the fields that an earlier version's flat config lacks."""
  return ADDED | flat


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
  """Returns the names of values that differ between flat configs, sorted."""
  return [name for name in sorted(a.keys() | b.keys())
          if _told(a, name) != _told(b, name)]


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
  """Describes each difference between flat configs: 'rounds (3, not 5)'."""
  return [f'{name} ({_told(a, name)}, not {_told(b, name)})'
          for name in differing(a, b)]


def _told(flat: dict[str, Any], name: str) -> Any:
  """Returns a value as a JSON file has it, by the present name of a piece."""
  value = json.loads(json.dumps(flat.get(name, 'absent')))
  return pieces.present(value) if isinstance(value, str) else value


def _plain(value: Any) -> bool:
  """Whether config.json can hold a value of a researcher's own field."""
  if isinstance(value, (tuple, list)):
    return all(map(_plain, value))
  return value is None or isinstance(value, (int, float, str))


def _shown(value: Any) -> str:
  """A value as Python prints it, shortened to 60 characters."""
  try:
    text = repr(value)
  except Exception:  # integers of thousands of digits, and some objects
    text = f'a {type(value).__name__}'
  return text if len(text) <= 60 else text[:60] + '...'
