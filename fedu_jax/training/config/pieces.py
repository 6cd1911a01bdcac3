"""Finds the piece that a config names: a function, or a record of a method.

A name is one of ours, in a dict of its section, or a researcher's own as
'package.module:name'. The keyword arguments of its function are fields of its
section.
"""

from collections.abc import Callable, Mapping
import importlib
import inspect
from typing import Any, NamedTuple

from fedu_jax.core import method
from fedu_jax.core.aggregation import AGGREGATIONS
from fedu_jax.core.method import Aggregation, Method, UpdateRule
from fedu_jax.core.participation import SAMPLINGS
from fedu_jax.core.trees import DIVERGENCES
from fedu_jax.core.update_rules import RULES
from fedu_jax.data.partition import PARTITIONS
from fedu_jax.learners import METHODS
from fedu_jax.learners.losses import LOSSES
from fedu_jax.models.networks import NETWORKS
from fedu_jax.runtime import suggest
from fedu_jax.runtime.errors import BadInput

# Modules that have moved: where they were -> where they are. Runs that began
# earlier name functions by the old paths, such as 'fedu_jax.losses:nt_xent'.
_MOVED = {
    'fedu_jax.aggregation': 'fedu_jax.core.aggregation',
    'fedu_jax.losses': 'fedu_jax.learners.losses',
    'fedu_jax.networks': 'fedu_jax.models.networks',
    'fedu_jax.participation': 'fedu_jax.core.participation',
    'fedu_jax.partition': 'fedu_jax.data.partition',
    'fedu_jax.rules': 'fedu_jax.core.update_rules',
    'fedu_jax.trees': 'fedu_jax.core.trees'}


class _Section(NamedTuple):
  """A section of the config whose `name` stands for a piece."""
  ours: Mapping[str, Any]  # name -> a function or a record
  called: str  # the arguments before its keyword arguments


SECTIONS = {
    'partition': _Section(PARTITIONS, 'labels, num_clients, rng'),
    'sampling': _Section(SAMPLINGS, 'rng, num_examples'),
    'model': _Section(NETWORKS, ''),
    'learner': _Section(METHODS, 'nets, view'),
    'loss': _Section(LOSSES, 'prediction, target'),
    'divergence': _Section(DIVERGENCES, 'params, params'),
    'aggregation': _Section(AGGREGATIONS, 'server, clients'),
    'rule': _Section(RULES, 'client, server'),
}
# The sections that make a method, and what a piece of each becomes.
_RECORDS: dict[str, Callable[..., Any]] = {
    'learner': method.method_of, 'aggregation': method.aggregation_of,
    'rule': method.rule_of}
# The arguments of the other members of a record.
_MEMBERS = {'learner': {'check': 'config'},
            'aggregation': {'upload': 'client, cohort', 'memory': 'clients'},
            'rule': {'download': 'server', 'memory': 'online'}}


def choices(section: str) -> dict[str, Any]:
  """Returns our pieces of a section by name; whole methods at the end."""
  whole = {name: piece for name, piece in METHODS.items()
           if len(belongs(piece)) > 1 and section in belongs(piece)}
  return {**SECTIONS[section].ours, **whole}


def belongs(piece: Any) -> tuple[str, ...]:
  """Returns the sections that must all name a piece if one of them does."""
  if not isinstance(piece, Method):
    return ()
  own = {'learner': piece.learner, 'aggregation': piece.aggregation,
         'rule': piece.rule}
  return tuple(section for section, part in own.items() if part is not None)


def present(name: str) -> str:
  """Returns the name of a piece, with the present path of a moved module."""
  path, colon, attribute = name.partition(':')
  return f'{_MOVED.get(path, path)}{colon}{attribute}'


def raw(section: str, name: str) -> Any:
  """Returns the piece of a name as its author wrote it.

  Raises:
    BadInput: there is none; the message names the nearest and all choices.
  """
  if ':' not in name:
    ours = choices(section)
    if name not in ours:
      raise BadInput(f'config.{section}.name is {name!r}'
                     + suggest.meant(name, ours) + '; '
                     + _choose(section))
    return ours[name]
  path, _, attribute = present(name).partition(':')
  try:
    return getattr(importlib.import_module(path), attribute)
  except Exception as error:  # a researcher's module can raise any error
    raise _no_function(section, name, error) from error


def find(section: str, name: str) -> Any:
  """Returns the piece that a section's name stands for.

  Returns:
    A `Method` for a learner, an `Aggregation`, an `UpdateRule`; a function for
    the other sections.

  Raises:
    BadInput: there is none, or it does not take the arguments of its section.
  """
  piece = _part(section, raw(section, name))
  if piece is None:
    raise BadInput(f'config.{section}.name is {name!r}, a method without '
                   f'{section} of its own; {_choose(section)}')
  if ':' in name:
    try:
      keywords(_function(piece))
    except Exception as error:
      raise _no_function(section, name, error) from error
    _check_call(f'config.{section}.name is {name!r}, which', _function(piece),
                SECTIONS[section].called, ', with keyword arguments behind a *')
    for member, called in _MEMBERS.get(section, {}).items():
      _check_call(f'config.{section}.name is {name!r}, whose {member}',
                  piece._asdict()[member], called)
  return piece


def function(section: str, name: str) -> Callable[..., Any]:
  """Returns the function of the piece that a section's name stands for."""
  return _function(find(section, name))


def keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """The keyword-only arguments of a function."""
  return {name: parameter for name, parameter in
          inspect.signature(function).parameters.items()
          if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def _choose(section: str) -> str:
  return (f'choose {", ".join(choices(section))}, or your own as '
          'package.module:function')


def _no_function(section: str, name: str, error: Exception) -> BadInput:
  return BadInput(f'config.{section}.name is {name!r}, which cannot be '
                  f'imported as a function ({type(error).__name__}: {error})')


def _part(section: str, piece: Any) -> Any:
  """A section's record of a piece; None if a method has none of its own."""
  if isinstance(piece, Method) and section in ('aggregation', 'rule'):
    piece = piece.aggregation if section == 'aggregation' else piece.rule
  if piece is None or section not in _RECORDS:
    return piece
  return _RECORDS[section](piece)


def _function(piece: Any) -> Any:
  """The function of a record; a function as it is."""
  if isinstance(piece, Method):
    return piece.learner
  return piece.fn if isinstance(piece, (Aggregation, UpdateRule)) else piece


def _check_call(which: str, function: Any, called: str, more: str = '') -> None:
  """Refuses a function that does not take these arguments."""
  try:
    inspect.signature(function).bind(*filter(None, called.split(', ')),
                                     **dict.fromkeys(keywords(function)))
  except (TypeError, ValueError) as error:
    raise BadInput(f'{which} cannot be called as ({called}){more}: {error}'
                   ) from error
