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
from fedu_jax.plan.hlo_text import Computation
from fedu_jax.plan.hlo_text import Instruction
from fedu_jax.plan.hlo_text import Program

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all',
               'collective-permute', 'collective-broadcast')
_CONTROL = {'while', 'conditional', 'call'}
# These start nothing on the device, or end what another has started.
_FREE = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'constant',
         'after-all', 'partition-id', 'replica-id', 'opt-barrier', 'domain',
         'add-dependency'} | _CONTROL
_FREE_CALLS = re.compile(
    'custom_call_target="(AllocateBuffer|Assume|GatherScatterIndices)')
_HOST = {'outfeed', 'infeed', 'send', 'recv'}
_HOST_CALLS = re.compile('custom_call_target="[^"]*(callback|MoveToHost|'
                         'MoveToDevice)|S\\(5\\)', re.IGNORECASE)


class Work(NamedTuple):
  """What is done in one turn of a loop, or outside of loops.

  Attributes:
    kernels: the number of kernels, without copies.
    bytes: the bytes that they read and write.
    copies: the number of copies from main memory to main memory.
    copied: the bytes that copies read and write.
  """
  kernels: int = 0
  bytes: int = 0
  copies: int = 0
  copied: int = 0

  def plus(self, other: 'Work', times: int = 1) -> 'Work':
    """Adds other work, done several times."""
    return Work(*(a + times * b for a, b in zip(self, other)))


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
  """
  name: str
  trips: int | None
  turns: int
  work: Work
  conditionals: int
  carry_copied: int


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
    """The loop over training steps: the one with most kernels in a turn."""
    return max(self.loops, key=lambda loop: loop.work.kernels, default=None)

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

  def visit(self, name: str, turns: int) -> tuple[Work, int, int]:
    """Counts a computation that runs `turns` times.

    Returns:
      Its work without loops, its conditionals, and the bytes of copies of what
      it gets or returns.
    """
    here = self.program.computations[name]
    work, conditionals, carried = Work(), 0, 0
    for x in here.instructions.values():
      if x.op == 'while':
        self._loop(x, turns)
      elif x.op in ('conditional', 'call'):
        most = max((self.visit(y, turns) for y in x.called()),
                   key=lambda found: found[0].bytes)
        work = work.plus(most[0])
        conditionals += (x.op == 'conditional') + most[1]
        carried += most[2]
      else:
        self._collective(x, here, turns)
        own = _work(x, here, self.program)
        work = work.plus(own)
        if own.copies and _is_carried(x, here):
          carried += own.copied
    return work, conditionals, carried

  def _loop(self, loop: Instruction, turns: int) -> None:
    trips = hlo_text.trips(loop, self.program)
    turns *= self.unknown_trips if trips is None else trips
    (body,) = loop.called('body')
    self.loops.append(Loop(body, trips, turns, *self.visit(body, turns)))

  def _collective(self, x: Instruction, here: Computation, turns: int) -> None:
    """Adds an instruction's collective; fusions may have one inside."""
    kind = x.op.removesuffix('-start')
    if kind in COLLECTIVES:
      self.collectives[kind] += turns
      self.collected[kind] += turns * _operands(x, here, anywhere=True)
    elif x.op in ('fusion', 'async-start'):
      for name in x.called('calls'):
        inner = self.program.computations[name]
        for y in inner.instructions.values():
          self._collective(y, inner, turns)


def _work(x: Instruction, here: Computation, program: Program) -> Work:
  """Counts one instruction."""
  if (x.op in _FREE or x.op.endswith('-done')
      or x.op == 'custom-call' and _FREE_CALLS.search(x.attributes)):
    return Work()
  if x.op == 'copy-start':  # its result has the source and the destination
    moved = hlo_text.num_bytes(x.shape)
    if moved < 2 * _operands(x, here) or not moved:
      return Work(bytes=moved)  # a TPU fetches ahead, into the chip
    return Work(copies=1, copied=moved)
  inner = (program.computations[x.called('calls')[0]]
           if x.op == 'fusion' else None)
  if x.op == 'copy' or inner and all(
      y.op in ('parameter', 'copy', 'bitcast', 'tuple', 'get-tuple-element')
      for y in inner.instructions.values()):
    return Work(copies=1, copied=_operands(x, here)
                + hlo_text.num_bytes(x.shape))
  if inner is None and x.op != 'custom-call' and hlo_text.is_scalar(x.shape):
    return Work()  # a TPU's scalar unit
  return Work(1, _moved(x, here, inner))


def _moved(x: Instruction, here: Computation, inner: Computation | None) -> int:
  """Counts the bytes that a kernel reads and writes."""
  if inner:
    return _read_by_fusion(x, here, inner) + sum(
        _written(inner.source(y), inner) for y in inner.results())
  if x.op in ('dynamic-slice', 'gather', 'slice'):
    return 2 * hlo_text.num_bytes(x.shape)
  if x.op == 'dynamic-update-slice':
    return 2 * _written(x, here)
  if x.op.endswith('-start') and x.op != 'all-reduce-start':
    return hlo_text.num_bytes(x.shape)  # its result has its operands, too
  return _operands(x, here) + hlo_text.num_bytes(x.shape)


def _read_by_fusion(x: Instruction, here: Computation,
                    inner: Computation) -> int:
  """Counts the bytes that a fusion reads: of sliced operands, the slices."""
  users: dict[str, list[Instruction]] = {}
  for y in inner.instructions.values():
    if y.op not in ('bitcast', 'get-tuple-element'):
      for name in y.operands:
        if source := inner.source(name):
          users.setdefault(source.name, []).append(y)
  total = 0
  for y in inner.instructions.values():
    if y.op != 'parameter':
      continue
    whole = hlo_text.num_bytes(
        here.instructions[x.operands[int(y.inside)]].shape)
    parts = [_part(user, y, inner) for user in users.get(y.name, [])]
    total += whole if None in parts else min(
        whole, sum(part or 0 for part in parts))
  return total


def _part(user: Instruction, parameter: Instruction, inner: Computation
          ) -> int | None:
  """Counts the bytes of a fusion's operand that a user reads; None: all."""
  if inner.source(user.operands[0]) != parameter:
    return None
  if user.op in ('dynamic-slice', 'gather', 'slice'):
    return hlo_text.num_bytes(user.shape)
  return 0 if user.op == 'dynamic-update-slice' else None


def _written(x: Instruction | None, here: Computation) -> int:
  """Counts the bytes of a result: of an update in place, the update."""
  if x is None:
    return 0
  if x.op == 'dynamic-update-slice':
    return hlo_text.num_bytes(here.instructions[x.operands[1]].shape)
  return hlo_text.num_bytes(x.shape)


def _operands(x: Instruction, here: Computation, *,
              anywhere: bool = False) -> int:
  return sum(hlo_text.num_bytes(here.instructions[name].shape,
                                anywhere=anywhere) for name in x.operands)


def _is_carried(copy: Instruction, here: Computation) -> bool:
  """Whether a copy is of what its computation gets, or returns."""
  source = here.source(copy.operands[0])
  return bool(source and source.op == 'parameter') or any(
      here.source(name) == copy for name in here.results())


def _reaches_host(x: Instruction) -> bool:
  return x.op in _HOST or (x.op in ('custom-call', 'copy-start') and bool(
      _HOST_CALLS.search(x.shape + x.attributes)))
