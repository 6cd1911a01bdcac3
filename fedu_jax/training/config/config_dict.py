"""The type of a config, and how one is made of another or of flat values."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_collections

# With the fields of configs/cifar10.py.
Config: TypeAlias = ml_collections.ConfigDict


def from_flat(flat: Mapping[str, Any]) -> Config:
  """Makes a config of values by dotted names, such as data.source.

  Lists become tuples, since JSON has no tuples and configs have no lists.

  Raises:
    AttributeError, TypeError: a name is that of a value and of a section.
  """
  nested: dict[str, Any] = {}
  for name, value in flat.items():
    *sections, last = name.split('.')
    place = nested
    for section in sections:
      place = place.setdefault(section, {})
    place[last] = tuple(value) if isinstance(value, list) else value
  return Config(nested)


def changed(config: Config, **changes: Any) -> Config:
  """Copies a config with other values, which are given by dotted names."""
  copy = Config(config.to_dict())
  copy.update_from_flattened_dict(changes)
  return copy
