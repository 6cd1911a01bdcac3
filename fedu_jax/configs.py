"""Finds config files: those shipped in configs/, and a user's own.

The source tree has the shipped configs in configs/, an installed package in a
folder next to this module. In both cases each is a submodule of this module and
is found by its bare name: --config=quickstart. A user's config can import them
as `configs.cifar10` too.
"""

import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
from typing import Any

from fedu_jax.runtime import paths
from fedu_jax.runtime import suggest
from fedu_jax.runtime.errors import BadInput

_INSTALLED = pathlib.Path(__file__).with_suffix('')
FOLDER = (_INSTALLED if _INSTALLED.is_dir()
          else pathlib.Path(__file__).parents[1] / 'configs')
__path__ = [str(FOLDER)]  # where Python looks for submodules


def __getattr__(name: str) -> Any:
  try:
    return importlib.import_module(f'{__name__}.{name}')
  except ModuleNotFoundError as error:
    raise AttributeError(f'{__name__} has no {name}') from error


def names() -> list[str]:
  """Returns the names of the shipped configs."""
  return sorted(path.stem for path in FOLDER.glob('[!_]*.py'))


def find(name: str) -> pathlib.Path:
  """Returns the file of a config: the user's own, or else a shipped one.

  Args:
    name: a path, or the name of a shipped config: quickstart, quickstart.py or
      configs/quickstart.py.

  Raises:
    BadInput: there is no such file.
  """
  path = pathlib.Path(name)
  shipped = path.parent in (pathlib.Path(), pathlib.Path('configs')) and (
      path.stem in names())
  if not shipped:  # shipped ones are found even if the current folder is gone
    path = paths.typed(name, '--config')
  for own in (path, path.with_name(path.name + '.py')):
    if own.is_file():
      return own
  if shipped:
    return FOLDER / f'{path.stem}.py'
  what = 'a folder' if path.is_dir() else 'no file'
  raise BadInput(f'--config={name} is {what}{suggest.meant(path.stem, names())}'
                 f'; give the path of your own, or choose {", ".join(names())}')


class _Finder(importlib.abc.MetaPathFinder):
  """Finds the package `configs` and its modules if nothing else finds them."""

  def find_spec(self, fullname, path=None, target=None):
    if fullname == 'configs':
      spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
      spec.submodule_search_locations = __path__
      return spec
    if fullname.startswith('configs.'):
      return importlib.machinery.PathFinder.find_spec(fullname, __path__)
    return None


def let_be_imported() -> None:
  """Makes `from configs import cifar10` work in any folder."""
  if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.append(_Finder())
