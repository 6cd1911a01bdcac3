"""The configs that are shipped: the files of configs/ in the source tree.

An installed package has them in a folder of its own. Either way each is a
submodule of this module, and is found by its bare name: --config=quickstart.
A config of one's own may import them as `configs.cifar10`, too.
"""

import importlib
import importlib.abc
import importlib.machinery
import pathlib
import sys
from typing import Any

from fedu_jax.runtime.errors import BadInput
from fedu_jax.runtime import paths
from fedu_jax.runtime import suggest

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
  """The names of all configs that are shipped."""
  return sorted(path.stem for path in FOLDER.glob('[!_]*.py'))


def find(name: str) -> pathlib.Path:
  """Finds the file of a config: one's own, or else one that is shipped.

  Args:
    name: a path, or the name of a shipped config: quickstart, quickstart.py or
      configs/quickstart.py.

  Raises:
    BadInput: there is no such file.
  """
  path = pathlib.Path(name)
  shipped = path.parent in (pathlib.Path(), pathlib.Path('configs')) and (
      path.stem in names())
  if not shipped:  # which is found though the current folder is gone
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
  """Finds `configs` and its modules where nothing else does."""

  def find_spec(self, fullname, path=None, target=None):
    if fullname == 'configs':
      spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
      spec.submodule_search_locations = __path__
      return spec
    if fullname.startswith('configs.'):
      return importlib.machinery.PathFinder.find_spec(fullname, __path__)
    return None


def let_be_imported() -> None:
  """Lets config files say `from configs import cifar10` in any folder."""
  if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.append(_Finder())
