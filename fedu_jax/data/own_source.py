"""Sources of a researcher's own: a function that returns arrays."""

from collections.abc import Callable
import importlib
import inspect
from typing import Any

import numpy as np

from fedu_jax.data import dataset
from fedu_jax.data.dataset import Dataset
from fedu_jax.data.lazy_arrays import Lazy
from fedu_jax.runtime.errors import BadInput

# The fields of a Dataset that come with folders of images and with data.test.
_NOT_THEIRS = 'files', 'probe_images', 'probe_labels', 'lines'


def function(source: str, choices: str) -> Callable[..., Any]:
  """Imports the function that a source names.

  Args:
    source: 'package.module:function'.
    choices: the sources there are, for the message.

  Returns:
    The function.

  Raises:
    BadInput: the function cannot be imported, or has arguments that are neither
      keyword-only nor have a default.
  """
  path, _, name = source.partition(':')
  try:
    found = getattr(importlib.import_module(path), name)
    parameters = inspect.signature(found).parameters.values()
  # A researcher's module can raise any error, and a script may exit.
  except (Exception, SystemExit) as error:
    raise BadInput(f'data.source is {source!r}, which cannot be imported as a '
                   f'function ({type(error).__name__}: {error}): use {choices}'
                   ) from error
  for parameter in parameters:
    if (parameter.kind in (parameter.POSITIONAL_ONLY,
                           parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty):
      raise BadInput(f'data.source is {source!r}, which needs the argument '
                     f'{parameter.name}: choices are keyword arguments behind '
                     'a *')
  return found


def read(source: str, own: Callable[..., Any],
         choices: dict[str, Any]) -> Dataset:
  """Calls a researcher's function, which returns a mapping or a `Dataset`.

  Args:
    source: the name of the function, for messages.
    own: the function.
    choices: its keyword arguments.

  Returns:
    The data set.

  Raises:
    BadInput: the function fails, or does not return arrays of a data set.
  """
  try:
    found = own(**choices)
    found = dict(found._asdict() if hasattr(found, '_asdict') else found)
    skipped = found.pop('skipped', None) or ()
    for name in _NOT_THEIRS:
      found.pop(name, None)
    arrays = {name: x if isinstance(x, Lazy) else np.asarray(x)
              for name, x in found.items() if x is not None}
  except BadInput:
    raise
  except (Exception, SystemExit) as error:
    raise BadInput(f'data.source {source} failed, or returned no mapping of '
                   f'arrays ({type(error).__name__}: {error})') from error
  if 'owner_names' in arrays and not arrays['owner_names'].size:
    del arrays['owner_names']
  if other := sorted(map(str, arrays.keys() - set(Dataset._fields))):
    may = [name for name in Dataset._fields if name not in _NOT_THEIRS]
    raise BadInput(f'data.source {source} returned {", ".join(other)}; it '
                   f'may return {", ".join(may)}')
  if 'train_images' not in arrays:
    raise BadInput(f'data.source {source} returned no train_images')
  return dataset.checked(arrays, source, 'function')._replace(
      skipped=tuple(map(str, skipped)))
