"""Binds the functions that a config names to the values of its fields."""

from collections.abc import Callable
import functools
from typing import Any

import ml_collections

from fedu_jax.core.method import Aggregation, Method, UpdateRule
from fedu_jax.learners import augment
from fedu_jax.training.config import pieces


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
