"""Counts the work of one instruction of a compiled program."""

import re
from typing import NamedTuple

from fedu_jax.plan import hlo_text
from fedu_jax.plan.hlo_text import Computation
from fedu_jax.plan.hlo_text import Instruction
from fedu_jax.plan.hlo_text import Program

_CONTROL = {'while', 'conditional', 'call'}
# These start nothing on the device, or end what another has started.
_FREE = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'constant',
         'after-all', 'partition-id', 'replica-id', 'opt-barrier', 'domain',
         'add-dependency'} | _CONTROL
_FREE_CALLS = (
    'custom_call_target="(AllocateBuffer|Assume|GatherScatterIndices)')


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


def of(x: Instruction, here: Computation, program: Program) -> Work:
  """Counts one instruction.

  Args:
    x: the instruction.
    here: its computation.
    program: its program.
  """
  if (x.op in _FREE or x.op.endswith('-done')
      or x.op == 'custom-call' and re.search(_FREE_CALLS, x.attributes)):
    return Work()
  if x.op == 'copy-start':  # its result has the source and the destination
    moved = hlo_text.num_bytes(x.shape)
    if moved < 2 * operands(x, here) or not moved:
      return Work(bytes=moved)  # a TPU fetches ahead, into the chip
    return Work(copies=1, copied=moved)
  inner = (program.computations[x.called('calls')[0]]
           if x.op == 'fusion' else None)
  if x.op == 'copy' or inner and all(
      y.op in ('parameter', 'copy', 'bitcast', 'tuple', 'get-tuple-element')
      for y in inner.instructions.values()):
    read, written = operands(x, here), hlo_text.num_bytes(x.shape)
    if x.op == 'copy' and not (read and written):
      return Work(bytes=read + written)  # into a TPU's chip, or out of it
    return Work(copies=1, copied=read + written)
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
  return operands(x, here) + hlo_text.num_bytes(x.shape)


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


def operands(x: Instruction, here: Computation, *,
             anywhere: bool = False) -> int:
  """Counts the bytes of an instruction's operands, as `hlo_text.num_bytes`."""
  return sum(hlo_text.num_bytes(here.instructions[name].shape,
                                anywhere=anywhere) for name in x.operands)
