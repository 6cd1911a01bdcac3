"""Reads the text of a compiled program (HLO), as `Compiled.as_text` gives it.

XLA documents the language: https://openxla.org/xla/operation_semantics. The
text is the same for all backends, but for layouts: a TPU's have tiles, and
name the memory that an array is in.
"""

import math
import re
from typing import NamedTuple

_COMPUTATION = r'^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$'
_INSTRUCTION = (
    r'^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_NAME = r'%([\w.\-]+)'
_CALLED = (
    r'(body|condition|calls|to_apply|branch_computations|true_computation|'
    r'false_computation|called_computations)=(?:\{([^}]*)\}|(%?[\w.\-]+))')
# f32[4,8]{1,0:T(4,128)S(1)}: kind, sides, order of the sides, tile, memory.
_ARRAY = (
    r'\b(pred|[a-z]+\d+(?:e\d\w*)?)\[([\d,]*)\]'
    r'(?:\{([\d,]*)(?::((?:T|L|S|E|D)[^}]*))?\})?')
_TILE = r'T\(([\d,]+)\)'
_ELSEWHERE = r'S\([1-9]\d*\)'


class Instruction(NamedTuple):
  """One instruction of a computation.

  Attributes:
    name: its name, unique in the program.
    shape: its result's shape, as text.
    op: the operation's name.
    operands: the names of its operands.
    inside: the text between the operation's parentheses.
    attributes: the text after them.
  """
  name: str
  shape: str
  op: str
  operands: tuple[str, ...]
  inside: str
  attributes: str

  def called(self, *kinds: str) -> list[str]:
    """Names the computations that it calls, by these attributes or by all."""
    return [name.strip().lstrip('%')
            for kind, several, one in re.findall(_CALLED, self.attributes)
            if not kinds or kind in kinds
            for name in (several or one).split(',')]


class Computation(NamedTuple):
  """A computation: the program's entry, a loop's body, a fusion, a branch."""
  instructions: dict[str, Instruction]
  root: str

  def source(self, name: str) -> Instruction | None:
    """Finds where a value is from, behind bitcasts and parts of tuples."""
    found = self.instructions.get(name)
    while found and found.op in ('bitcast', 'get-tuple-element'):
      found = self.instructions.get(found.operands[0])
    return found

  def results(self) -> list[str]:
    """Names the parts of its result: one, or those of a tuple."""
    root = self.instructions[self.root]
    return list(root.operands) if root.op == 'tuple' else [self.root]


class Program(NamedTuple):
  """A program: its computations by name, its entry's name, its first line."""
  computations: dict[str, Computation]
  entry: str
  header: str


def parse(text: str) -> Program:
  """Parses the text of a compiled program.

  Raises:
    ValueError: the text has no entry, so it is not such a text.
  """
  computations: dict[str, Computation] = {}
  entry = name = root = ''
  instructions: dict[str, Instruction] = {}
  for line in text.splitlines():
    if line.startswith('}') and name:
      computations[name] = Computation(instructions, root)
      name = ''
    elif name:
      if found := re.match(_INSTRUCTION, line):
        instructions[found[2]] = _instruction(*found.groups()[1:])
        root = found[2] if found[1] else root
    elif found := re.match(_COMPUTATION, line):
      name, instructions, root = found[2], {}, ''
      entry = name if found[1] else entry
  if not entry:
    raise ValueError('the text of a compiled program has an ENTRY')
  return Program(computations, entry, text.partition('\n')[0])


def _instruction(name: str, shape: str, op: str, rest: str) -> Instruction:
  depth = 1
  for end, letter in enumerate(rest):
    depth += (letter == '(') - (letter == ')')
    if not depth:
      break
  inside = rest[:end]
  return Instruction(name, shape, op, tuple(re.findall(_NAME, inside)), inside,
                     rest[end + 1:])


def num_bytes(shape: str, *, anywhere: bool = False) -> int:
  """Counts the bytes of a shape, or of a tuple's, in the device's main memory.

  On a TPU, arrays are padded to the tiles of their layout, and those that the
  compiler keeps on the chip take no main memory.

  Args:
    shape: the shape, as text.
    anywhere: counts arrays in any memory, without padding.
  """
  total = 0
  for kind, sides, order, layout in re.findall(_ARRAY, shape):
    counts = [int(x) for x in sides.split(',') if x]
    tiles = re.search(_TILE, layout)
    if tiles and not anywhere:
      if re.search(_ELSEWHERE, layout):
        continue
      tile = [int(x) for x in tiles[1].split(',')]
      by_order = [int(x) for x in order.split(',') if x]
      for axis, side in zip(by_order, reversed(tile)):
        counts[axis] = -(-counts[axis] // side) * side
    total += math.prod(counts) * _item_bits(kind) // 8
  return total


def _item_bits(kind: str) -> int:
  if kind == 'pred':
    return 8
  found = re.search(r'\d+', kind)
  return int(found[0]) if found else 0


def is_scalar(shape: str) -> bool:
  """Whether a shape is that of one number."""
  arrays = re.findall(_ARRAY, shape)
  return len(arrays) == 1 and not arrays[0][1]


def trips(loop: Instruction, program: Program) -> int | None:
  """Finds how often a loop turns; None if the text does not say.

  Args:
    loop: an instruction `while`.
    program: its program.
  """
  if found := re.search(r'known_trip_count\D*(\d+)', loop.attributes):
    return int(found[1])
  # A TPU's text names no count; a scan's condition is `turn < constant`.
  (name,) = loop.called('condition')
  condition = program.computations[name]
  bounds = {x.inside for x in condition.instructions.values()
            if x.op == 'constant' and is_scalar(x.shape)}
  test = condition.instructions[condition.root]
  if len(bounds) == 1 and 'direction=LT' in test.attributes:
    return int(bounds.pop())
  return None
