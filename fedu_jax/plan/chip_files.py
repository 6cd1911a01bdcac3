"""Reads descriptions of chips: those in `chips/`, or a user's own file.

A description is a TOML file. `docs/devices.md` explains its fields.
"""

import pathlib
import tomllib
from typing import Any, NamedTuple

from fedu_jax.runtime import suggest
from fedu_jax.runtime.errors import BadInput

_FOLDER = pathlib.Path(__file__).parent / 'chips'
_NUMBERS = ('memory', 'memory_share', 'bandwidth', 'launch_microseconds')
# The arithmetic of products. JAX's default for float32 differs by chip.
ARITHMETICS = ('bfloat16', 'float32_default', 'tensorfloat32', 'float32')
_OF_COMPILER = {'gpu': ('target',), 'tpu': ('topology', 'slices')}


class Chip(NamedTuple):
  """A chip, as its vendor describes it.

  Attributes:
    name: its full name.
    compiler: 'gpu' or 'tpu'.
    memory: bytes.
    memory_share: the part of the memory that a program may take.
    bandwidth: bytes a second.
    launch_microseconds: the time of a kernel that does nothing.
    peak: operations a second by arithmetic, see ARITHMETICS.
    target: of a GPU, XLA's description of it (GpuTargetConfigProto, as text).
    topology: of a TPU, libtpu's name of it.
    slices: of a TPU, the shapes of slices, the smallest first.
    sources: for each figure, where it is from.
  """
  name: str
  compiler: str
  memory: float
  memory_share: float
  bandwidth: float
  launch_microseconds: float
  peak: dict[str, float]
  sources: dict[str, str]
  target: str = ''
  topology: str = ''
  slices: tuple[str, ...] = ()

  @property
  def usable(self) -> float:
    """The bytes that a program may take."""
    return self.memory * self.memory_share


def names() -> list[str]:
  """The names of the chips that are described here."""
  return sorted(path.stem for path in _FOLDER.glob('*.toml'))


def load(chip: str) -> Chip:
  """Loads a chip.

  Args:
    chip: a name of `names`, or the path of a file.

  Raises:
    BadInput: there is no such chip or file, or a field of it is wrong.
  """
  path = _FOLDER / f'{chip}.toml'
  if chip not in names():
    path = pathlib.Path(chip)
    if not path.is_file():
      raise BadInput(
          f'--chip is {chip!r}, neither a known chip ({", ".join(names())}) '
          f'nor a file{suggest.meant(chip, names())}')
  try:
    found = tomllib.loads(path.read_text())
  except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
    raise BadInput(f'the chip file {path} cannot be read: {error}') from error
  if wrong := _wrong(found):
    raise BadInput(f'in the chip file {path}: {wrong}')
  if 'slices' in found:
    found['slices'] = tuple(found['slices'])
  return Chip(**found)


def _wrong(found: dict[str, Any]) -> str:
  """Says what is wrong with the fields of a chip file; '' if nothing is."""
  compiler = found.get('compiler')
  if compiler not in _OF_COMPILER:
    return f'compiler is {compiler!r}, not one of {", ".join(_OF_COMPILER)}'
  needed = {'name', 'compiler', 'peak', 'sources', *_NUMBERS,
            *_OF_COMPILER[compiler]}
  if missing := sorted(needed - found.keys()):
    return f'{missing[0]} is missing'
  if more := sorted(found.keys() - needed):
    return f'unknown field {more[0]!r}{suggest.meant(more[0], sorted(needed))}'
  for field in ('peak', 'sources'):
    if not isinstance(found[field], dict):
      return f'{field} is not a table: write [{field}]'
  numbers = {field: found[field] for field in _NUMBERS} | {
      f'peak.{name}': found['peak'].get(name) for name in ARITHMETICS}
  for field, value in numbers.items():
    least = 0 if field == 'launch_microseconds' else 1e-9
    if type(value) not in (int, float) or not least <= value < 1e30:
      return f'{field} is {value!r}, not a number above 0'
  if found['memory_share'] > 1:
    return 'memory_share is above 1'
  for field in ('name', 'target', 'topology'):
    if not isinstance(found.get(field, ''), str):
      return f'{field} is not a text'
  slices = found.get('slices', ['1x1'])
  if not isinstance(slices, list) or not all(map(_is_slice, slices)):
    return f'slices is {slices!r}, not a list such as ["1x1", "2x2"]'
  figures = sorted(needed - {'name', 'compiler', 'sources'})
  if bare := [x for x in figures if not found['sources'].get(x)]:
    return f'sources.{bare[0]} is missing: say where the figure is from'
  return ''


def _is_slice(shape: Any) -> bool:
  return isinstance(shape, str) and all(
      side.isdigit() and int(side) > 0 for side in shape.split('x'))
