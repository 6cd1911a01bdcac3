"""The type of a config, and functions that make one."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_collections

from fedu_jax.training.config.fields import FIELDS

Config: TypeAlias = ml_collections.ConfigDict


def defaults() -> Config:
  """Makes a config with all fields of `fields`, at their defaults."""
  return from_flat({name: field.default for name, field in FIELDS.items()})


def from_flat(flat: Mapping[str, Any]) -> Config:
  """Makes a config from values by dotted names, such as data.source.

  Lists become tuples, because JSON has no tuples and configs have no lists.

  Raises:
    AttributeError, TypeError: a name is both a value and a section.
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
  """Copies a config and changes values, given by dotted names."""
  copy = Config(config.to_dict())
  copy.update_from_flattened_dict(changes)
  return copy
