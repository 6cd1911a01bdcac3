"""Checks a config, and compares two of them.

A name in the config stands for a piece, see `pieces`. The keyword arguments of
its function are fields of its section, so a new argument needs no change here.
"""

import json
from typing import Any

import ml_collections

from fedu_jax.data import sources
from fedu_jax.runtime import suggest
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config import binding
from fedu_jax.training.config import compatibility
from fedu_jax.training.config import pieces
from fedu_jax.training.config.fields import ADDED
from fedu_jax.training.config.fields import FIELDS

# The fields that say where a run runs. They change results by rounding at most.
# The values are those of a run that is read from its folder.
PLACES = {'data.dir': '', 'devices': 'auto', 'devices_per_client': 1,
          'clients_per_device': 0, 'store': 'auto',
          'feed': 'auto', 'chunk_steps': 0,
          'distributed.coordinator': '',
          'distributed.processes': 0, 'distributed.process': -1,
          'distributed.timeout': 100}
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
      if wanted := FIELDS[name].check(value):
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
      flat, labelled=binding.labelled(config),
      belongs={name: pieces.belongs(pieces.raw(kind, name))
               for name, kind in named.items()},
      suits=binding.method(config).check)


def _own_fields(flat: dict[str, Any]) -> set[str]:
  """The fields that the config's functions take, a researcher's own too."""
  fields = set()
  for section in pieces.SECTIONS:
    chosen = flat[f'{section}.name']
    if wanted := FIELDS[f'{section}.name'].check(chosen):
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
  if FIELDS['data.source'].check(source) or not (
      own := sources.function(source)):
    return set()
  fields = {f'data.{name}': parameter for name, parameter
            in pieces.keywords(own).items() if name != 'lazy'}
  for name, parameter in fields.items():
    if parameter.default is parameter.empty and name not in flat:
      raise BadInput(f'config.data.source is {source!r}, which needs a field '
                     f'config.{name}: add it in the config file')
  return set(fields)


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
