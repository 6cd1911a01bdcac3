"""Who may import whom: ten rules, read from the imports of the source.

The first eight are the rows of ROOMS. The other two are `config_is_bound_once`
and `no_private_names`. The tests after them keep the shape of the whole.
"""

import ast
from collections.abc import Callable, Iterator
import pathlib
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Each room, and the rooms that its modules may import, beside its own. A room
# is a folder of fedu_jax/, a folder of training/, or a module on top.
ROOMS = {
    'core': '',
    'runtime': '',
    'models': 'core',
    'data': 'runtime',
    'configs': 'runtime',
    'learners': 'core models',
    'evaluation': 'core models learners data runtime',
    'encoders': 'core models learners data runtime',
    'training.config': 'core models learners data runtime configs '
                       'training.engine',
    'training.engine': 'core models learners data runtime',
    'training': 'core models learners data runtime evaluation encoders '
                'training.config training.engine',
    'plan': 'core models learners data runtime configs evaluation '
            'training.config training.engine training',
    'experiments': 'core models learners data runtime configs evaluation '
                   'training.config training.engine training',
    'main': 'core models learners data runtime configs evaluation '
            'training.config training.engine training',
    'evaluate': 'core models learners data runtime configs evaluation '
                'training.config training.engine training',
    'export': 'core models learners data runtime evaluation encoders '
              'training',
    'embed': 'core models learners data runtime evaluation encoders training',
    # The public names. `training` is imported when `load` is called.
    '__init__': 'core models learners data runtime evaluation encoders '
                'training',
}

# The rooms that are a module.
MODULES = {'main', 'evaluate', 'export', 'embed', '__init__'}

# `data` reads images with NumPy: a process that only reads starts no device.
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax'}

# Where a config is still a ConfigDict; below, it is bound.
CONFIG_ROOMS = {'main', 'evaluate', 'plan', 'experiments', 'training.config'}

# May be imported by more than half of all modules.
EVERYWHERE = {'core.state', 'core.trees', 'runtime.errors'}

# The one module that uses private names of libraries. It says why, and until
# which version.
FENCED = 'runtime.private_apis'

# Documented, though their names begin with an underscore.
DOCUMENTED = {'_asdict', '_field_defaults', '_fields', '_make', '_replace',
              'os._exit'}


class Module(NamedTuple):
  """A module of fedu_jax.

  Attributes:
    text: its source.
    ours: the modules of fedu_jax that it imports, by their names in it.
    libraries: the other modules that it imports.
  """

  text: str
  ours: set[str]
  libraries: set[str]

  @property
  def tree(self) -> ast.Module:
    return ast.parse(self.text)


def read(package: pathlib.Path) -> dict[str, Module]:
  """Reads all modules of a package by their names in it, as core.state.

  The __init__ of a folder has the folder's name. One that holds only a
  docstring is left out.
  """
  texts = {}
  for path in sorted(package.rglob('*.py')):
    name = '.'.join(path.relative_to(package).with_suffix('').parts)
    text = path.read_text()
    if not name.endswith('.__init__'):
      texts[name] = text
    elif len(ast.parse(text).body) > 1:
      texts[name.removesuffix('.__init__')] = text
  return {name: Module(text, *_imports(ast.parse(text), set(texts)))
          for name, text in texts.items()}


def _imports(tree: ast.Module, known: set[str]) -> tuple[set[str], set[str]]:
  """Finds the modules that a module imports, at any place in it."""
  ours, libraries = set(), set()
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, 'a relative import'
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        'import_module') and isinstance(node.args[0], ast.Constant):
      names = [node.args[0].value]
    for name in names:
      top, _, inside = name.partition('.')
      if top != 'fedu_jax':
        libraries.add(name)
      elif inside in known:
        ours.add(inside)
      else:  # a name in a module, of a folder, or of the top
        ours.add(inside.rpartition('.')[0] or '__init__')
  return ours, libraries


def room_of(name: str) -> str:
  """The room of a module: training.config for training.config.fields."""
  parts = name.split('.')
  if '.'.join(parts[:2]) in ROOMS:
    return '.'.join(parts[:2])
  return parts[0]


# --- The rules. Each takes all modules, and yields what breaks it. ---


def rooms_point_down(modules: dict[str, Module]) -> Iterator[str]:
  """A module imports only from its room and the rooms of its ROOMS row."""
  for name, module in modules.items():
    room = room_of(name)
    if room not in ROOMS:
      yield f'{name} is in no room'
      continue
    for other in module.ours:
      if room_of(other) not in {room, *ROOMS[room].split()}:
        yield f'{name} imports {other}'


def data_needs_no_jax(modules: dict[str, Module]) -> Iterator[str]:
  """Nothing in data/ imports JAX."""
  for name, module in modules.items():
    if room_of(name) == 'data':
      for other in module.libraries:
        if other.split('.')[0] in JAX:
          yield f'{name} imports {other}'


def config_is_bound_once(modules: dict[str, Module]) -> Iterator[str]:
  """Only the programs and training/config know ml_collections."""
  for name, module in modules.items():
    if room_of(name) not in CONFIG_ROOMS and any(
        other.split('.')[0] == 'ml_collections' for other in module.libraries):
      yield name


def no_private_names(modules: dict[str, Module]) -> Iterator[str]:
  """No module uses a private name of another, ours or a library's."""
  for name, module in modules.items():
    if name != FENCED:
      for private in _private(module.tree):
        yield f'{name} uses {private}'


def _private(tree: ast.Module) -> Iterator[str]:
  """Finds the private names in a module that it does not define itself."""
  own = {node.name for node in ast.walk(tree) if isinstance(
      node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
  own |= {node.attr for node in ast.walk(tree) if isinstance(
      node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import | ast.ImportFrom):
      module = getattr(node, 'module', None)
      for alias in node.names:
        full = f'{module}.{alias.name}' if module else alias.name
        if any(map(_is_private, full.split('.'))):
          yield full
    elif isinstance(node, ast.Attribute) and _is_private(node.attr):
      full = ast.unparse(node)
      if node.attr not in own and not {node.attr, full} & DOCUMENTED:
        yield full
    elif (isinstance(node, ast.Call) and ast.unparse(node.func) == 'getattr'
          and isinstance(node.args[1], ast.Constant)
          and _is_private(node.args[1].value)
          and node.args[1].value not in own | DOCUMENTED):
      yield f'{ast.unparse(node.args[0])}.{node.args[1].value}'


def _is_private(name: str) -> bool:
  return name.startswith('_') and not name.endswith('__')


def rooms_have_seven_levels(modules: dict[str, Module]) -> Iterator[str]:
  """The longest chain of rooms has at most seven levels."""
  below: dict[str, set[str]] = {}
  for name, module in modules.items():
    below.setdefault(room_of(name), set()).update(map(room_of, module.ours))

  def ways(room: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield above + (room,)
    if room not in above:
      for other in sorted(below.get(room, set()) - {room}):
        yield from ways(other, above + (room,))

  found = [way for room in sorted(below) for way in ways(room)]
  if circles := [way for way in found if way[-1] in way[:-1]]:
    yield 'a circle: ' + ' -> '.join(min(circles, key=len))
  elif len(longest := max(found, key=len)) > 7:
    yield f'{len(longest)} levels: ' + ' -> '.join(longest)


def modules_import_in_no_circle(modules: dict[str, Module]) -> Iterator[str]:
  """No module imports itself through others, in its room or in others."""
  done: set[str] = set()

  def walk(name: str, way: tuple[str, ...]) -> Iterator[str]:
    if name in way:
      yield ' -> '.join(way[way.index(name):] + (name,))
    elif name not in done and name in modules:
      for other in sorted(modules[name].ours):
        yield from walk(other, way + (name,))
      done.add(name)

  for name in modules:
    yield from walk(name, ())


def few_are_imported_everywhere(modules: dict[str, Module]) -> Iterator[str]:
  """No module but EVERYWHERE is imported by more than half of all."""
  for name in modules.keys() - EVERYWHERE:
    users = [other for other in modules if name in modules[other].ours]
    if len(users) > (len(modules) - 1) / 2:
      yield f'{len(users)} of {len(modules)} import {name}'


def modules_fit_on_a_few_screens(modules: dict[str, Module]) -> Iterator[str]:
  """A module has at most 300 lines."""
  for name, module in modules.items():
    if (lines := len(module.text.splitlines())) > 300:
      yield f'{name} has {lines} lines'


RULES: list[Callable[[dict[str, Module]], Iterator[str]]] = [
    rooms_point_down, data_needs_no_jax, config_is_bound_once,
    no_private_names, rooms_have_seven_levels, modules_import_in_no_circle,
    few_are_imported_everywhere, modules_fit_on_a_few_screens]


@pytest.fixture(scope='module')
def fedu_jax():
  return read(ROOT / 'fedu_jax')


@pytest.mark.parametrize('rule', RULES)
def test_holds(rule, fedu_jax):
  assert not list(rule(fedu_jax))


def test_every_room_is_there(fedu_jax):
  assert set(map(room_of, fedu_jax)) == set(ROOMS)
  assert FENCED in fedu_jax


def test_users_use_no_private_names():
  """Benchmarks and configs use none either."""
  for folder in ('benchmarks', 'configs'):
    modules = read(ROOT / folder)
    assert modules and not list(no_private_names(modules))


# --- Each rule is seen to fail, on a package made up to break it. ---


def made_up(folder: pathlib.Path, files: dict[str, str]) -> dict[str, Module]:
  """Reads a package of these files: source by the module's name."""
  for name, text in files.items():
    path = folder / (name.replace('.', '/') + '.py')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + '\n')
  return read(folder)


@pytest.mark.parametrize('room', ROOMS)
def test_each_row_can_fail(room, tmp_path):
  """For each other room, an import of it is reported if the row lacks it."""
  def inside(where: str) -> str:
    return where if where in MODULES else f'{where}.x'

  for i, other in enumerate(set(ROOMS) - {room}):
    modules = made_up(tmp_path / str(i), {
        inside(room): '"""Said."""\n' + (
            'from fedu_jax import y' if other == '__init__' else
            f'from fedu_jax.{inside(other)} import y'),
        inside(other): '"""Said."""\ny = 1'})
    allowed = other in ROOMS[room].split()
    assert list(rooms_point_down(modules)) == (
        [] if allowed else [f'{inside(room)} imports {inside(other)}']), other


@pytest.mark.parametrize('rule, files, found', [
    (rooms_point_down, {'attic.x': ''}, 'attic.x is in no room'),
    (rooms_point_down,
     {'core.x': 'def f():\n  from fedu_jax.data import y', 'data.y': ''},
     'core.x imports data.y'),
    (rooms_point_down,
     {'core.x': 'import importlib\nimportlib.import_module("fedu_jax.data.y")',
      'data.y': ''},
     'core.x imports data.y'),
    (rooms_point_down,
     {'training.engine.x': 'from fedu_jax.training.config.y import z',
      'training.config.y': ''},
     'training.engine.x imports training.config.y'),
    (data_needs_no_jax, {'data.x': 'import jax.numpy as jnp'},
     'data.x imports jax.numpy'),
    (data_needs_no_jax, {'data.x': 'def f():\n  from flax import linen'},
     'data.x imports flax.linen'),
    (config_is_bound_once,
     {'training.engine.x': 'import ml_collections', 'training.config.y':
      'import ml_collections'}, 'training.engine.x'),
    (no_private_names, {'core.x': 'from fedu_jax.core.y import _z'},
     'core.x uses fedu_jax.core.y._z'),
    (no_private_names, {'core.x': 'from fedu_jax.core import y\ny._z()'},
     'core.x uses y._z'),
    (no_private_names, {'core.x': 'from jax._src import distributed'},
     'core.x uses jax._src.distributed'),
    (no_private_names, {'core.x': 'import jax\njax._src.core'},
     'core.x uses jax._src'),
    (no_private_names, {'core.x': 'def f(x):\n  return getattr(x, "_y")'},
     'core.x uses x._y'),
    (rooms_have_seven_levels,
     {f'room{i}.x': f'from fedu_jax.room{i + 1}.x import y' for i in range(8)},
     '9 levels: ' + ' -> '.join(f'room{i}' for i in range(9))),
    (rooms_have_seven_levels,
     {'core.x': 'from fedu_jax.data import y', 'data.y': '',
      'data.z': 'from fedu_jax.core import x'},
     'a circle: core -> data -> core'),
    (modules_import_in_no_circle,
     {'core.x': 'from fedu_jax.core import y',
      'core.y': 'from fedu_jax.core import z',
      'core.z': 'def f():\n  from fedu_jax.core.x import w'},
     'core.x -> core.y -> core.z -> core.x'),
    (few_are_imported_everywhere,
     {'core.w': '', **{f'core.{x}': 'from fedu_jax.core import w'
                       for x in 'xy'}},
     '2 of 3 import core.w'),
    (modules_fit_on_a_few_screens, {'core.x': 'y = 1\n' * 300},
     'core.x has 301 lines'),
])
def test_each_rule_can_fail(rule, files, found, tmp_path):
  assert found in list(rule(made_up(tmp_path, files)))
