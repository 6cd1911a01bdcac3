"""The declaration of one field of a config."""

from typing import Any, NamedTuple

from fedu_jax.training.config.value_checks import Check


class Field(NamedTuple):
  """A field of a config.

  Attributes:
    name: its dotted name.
    default: its value if neither a config file nor a flag sets it.
    check: value -> '' if the value is allowed; else what it must be.
    about: what it is, for people.
    before: the value that runs had before this field existed, by which they
      resume; None for a field that all runs have.
  """
  name: str
  default: Any
  check: Check
  about: str
  before: Any = None
