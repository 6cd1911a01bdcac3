"""Counts what a compiled program does: kernels, bytes, copies, collectives.

  counts = program_counts.count(compiled)
  counts.step.work.kernels, counts.step.conditionals, counts.collectives

All figures are read from the optimised text of the program. A kernel is an
instruction that the device starts by itself: on a GPU one launch; on a TPU a
fusion, a convolution, a sort or the like, which the chip runs one after the
other without a launch by the host. Bytes are the operands and results of each
kernel, also of those that hit in a cache. A slice of an array counts as the
slice.
"""

from collections import Counter
import re
from typing import NamedTuple

import jax

from fedu_jax.plan import hlo_text
from fedu_jax.plan import instruction_work
from fedu_jax.plan.hlo_text import Computation
from fedu_jax.plan.hlo_text import Instruction
from fedu_jax.plan.hlo_text import Program
from fedu_jax.plan.instruction_work import Work

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all',
               'collective-permute', 'collective-broadcast')
_PRODUCT_CALLS = r'custom_call_target="__(cudnn|cublas)'
_HOST = {'outfeed', 'infeed', 'send', 'recv'}
_HOST_CALLS = (
    '(?i)custom_call_target="[^"]*(callback|MoveToHost|MoveToDevice)|'
    'S\\(5\\)')


class Loop(NamedTuple):
  """A loop of the program.

  Attributes:
    name: the name of its body.
    trips: how often it turns; None if the text does not say.
    turns: how often its body runs in a whole program, by the trips of the loops
      around it.
    work: the work of a turn, without that of loops inside. Of a conditional,
      the branch that moves most counts.
    conditionals: the conditionals of a turn.
    carry_copied: the bytes of copies of what one turn hands to the next.
    products: the convolutions and matrix products of a turn.
  """
  name: str
  trips: int | None
  turns: int
  work: Work
  conditionals: int
  carry_copied: int
  products: int


class Collective(NamedTuple):
  """All collectives of a kind: how many a program runs, and their bytes."""
  kind: str
  times: int
  bytes: int


class ProgramCounts(NamedTuple):
  """What a program does.

  Attributes:
    loops: its loops, the outer ones first.
    outside: the work outside of all loops.
    collectives: the collectives, by kind.
    conditionals: the conditionals anywhere, loops included.
    host_transfers: the instructions that exchange data with the host.
    arguments: the number of its arguments.
    donated: the number of arguments that results are written into.
  """
  loops: tuple[Loop, ...]
  outside: Work
  collectives: tuple[Collective, ...]
  conditionals: int
  host_transfers: tuple[str, ...]
  arguments: int
  donated: int

  @property
  def step(self) -> Loop | None:
    """The loop over training steps: the one with most products in a turn."""
    return max(self.loops, key=lambda loop: (loop.products, loop.turns),
               default=None)

  @property
  def rest(self) -> Work:
    """All work but that of `step`, each loop as often as it turns."""
    total = self.outside
    for loop in self.loops:
      if loop is not self.step:
        total = total.plus(loop.work, loop.turns)
    return total

  def collective(self, kind: str) -> Collective:
    """The collectives of a kind; 0 times if there are none."""
    return next((x for x in self.collectives if x.kind == kind),
                Collective(kind, 0, 0))


def count(program: jax.stages.Compiled | str, *,
          unknown_trips: int = 1) -> ProgramCounts:
  """Counts what a program does.

  Args:
    program: a compiled program, or its optimised text.
    unknown_trips: the turns of a loop that are not in the text.

  Raises:
    ValueError: the text is not that of a compiled program.
  """
  text = program if isinstance(program, str) else program.as_text()
  parsed = hlo_text.parse(text or '')
  counter = _Counter(parsed, unknown_trips)
  outside = counter.visit(parsed.entry, 1)[0]
  entry = parsed.computations[parsed.entry].instructions.values()
  return ProgramCounts(
      tuple(sorted(counter.loops, key=lambda loop: loop.turns)), outside,
      tuple(Collective(kind, number, counter.collected[kind])
            for kind, number in counter.collectives.items()),
      sum(x.op == 'conditional' for c in parsed.computations.values()
          for x in c.instructions.values()),
      tuple(x.name for c in parsed.computations.values()
            for x in c.instructions.values() if _reaches_host(x)),
      sum(x.op == 'parameter' for x in entry),
      len(re.findall(r'(?:may|must)-alias', parsed.header)))


class _Counter:
  """Walks through the computations of a program."""

  def __init__(self, program: Program, unknown_trips: int):
    self.program, self.unknown_trips = program, unknown_trips
    self.loops: list[Loop] = []
    self.collectives: Counter[str] = Counter()
    self.collected: Counter[str] = Counter()

  def visit(self, name: str, turns: int) -> tuple[Work, int, int, int]:
    """Counts a computation that runs `turns` times.

    Returns:
      Its work without loops, its conditionals, the bytes of copies of what it
      gets or returns, and its products.
    """
    here = self.program.computations[name]
    work, conditionals, carried, products = Work(), 0, 0, 0
    for x in here.instructions.values():
      if x.op == 'while':
        self._loop(x, turns)
      elif x.op in ('conditional', 'call'):
        most = max((self.visit(y, turns) for y in x.called()),
                   key=lambda found: found[0].bytes)
        work = work.plus(most[0])
        conditionals += (x.op == 'conditional') + most[1]
        carried += most[2]
        products += most[3]
      else:
        self._collective(x, here, turns)
        own = instruction_work.of(x, here, self.program)
        work = work.plus(own)
        if own.copies and _is_carried(x, here):
          carried += own.copied
        products += self._products(x)
    return work, conditionals, carried, products

  def _loop(self, loop: Instruction, turns: int) -> None:
    trips = hlo_text.trips(loop, self.program)
    turns *= self.unknown_trips if trips is None else trips
    (body,) = loop.called('body')
    self.loops.append(Loop(body, trips, turns, *self.visit(body, turns)))

  def _products(self, x: Instruction) -> int:
    """Counts the products of an instruction; a fusion may have some inside."""
    if x.op == 'custom-call':
      return bool(re.search(_PRODUCT_CALLS, x.attributes))
    return (x.op in ('convolution', 'dot')) + sum(
        self._products(y) for name in (
            x.called('calls') if x.op == 'fusion' else ())
        for y in self.program.computations[name].instructions.values())

  def _collective(self, x: Instruction, here: Computation, turns: int) -> None:
    """Adds an instruction's collective; fusions may have one inside."""
    kind = x.op.removesuffix('-start')
    if kind in COLLECTIVES:
      self.collectives[kind] += turns
      self.collected[kind] += turns * instruction_work.operands(
          x, here, anywhere=True)
    elif x.op in ('fusion', 'async-start'):
      for name in x.called('calls'):
        inner = self.program.computations[name]
        for y in inner.instructions.values():
          self._collective(y, inner, turns)


def _is_carried(copy: Instruction, here: Computation) -> bool:
  """Whether a copy is of what its computation gets, or returns."""
  source = here.source(copy.operands[0])
  return bool(source and source.op == 'parameter') or any(
      here.source(name) == copy for name in here.results())


def _reaches_host(x: Instruction) -> bool:
  return x.op in _HOST or (x.op in ('custom-call', 'copy-start') and bool(
      re.search(_HOST_CALLS, x.shape + x.attributes)))
