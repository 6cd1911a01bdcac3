"""Runs `chip_compiler` as a process, and reads what it made."""

from collections.abc import Sequence
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from fedu_jax.plan import chip_compiler
from fedu_jax.plan import chip_files
from fedu_jax.plan import program_counts
from fedu_jax.runtime.errors import BadInput

# The packages that bring a compiler, and the extra that installs one.
_PACKAGES = {'gpu': ('jax_cuda13_plugin', 'jax_cuda12_plugin'),
             'tpu': ('libtpu',)}


class CompiledRound(NamedTuple):
  """A round, compiled for a chip.

  Attributes:
    counts: what its program does.
    peak: bytes on a device.
    arguments: the bytes of its arguments, a part of the peak.
    temporary: the bytes of its temporaries, a part of the peak.
    seconds: the time of the compiler.
    text: its optimised text.
  """
  counts: program_counts.ProgramCounts
  peak: int
  arguments: int
  temporary: int
  seconds: float
  text: str


class DoesNotFit(Exception):
  """The chip's compiler finds too little memory; the message is its own."""


def missing(compiler: str) -> str:
  """Says what to install for a compiler; '' if it is here.

  Args:
    compiler: 'gpu' or 'tpu'.
  """
  if any(importlib.util.find_spec(name) for name in _PACKAGES[compiler]):
    return ''
  what = {'gpu': "NVIDIA GPUs", 'tpu': 'TPUs'}[compiler]
  return (f'the compiler for {what} is not installed: '
          f"pip install 'fedu_jax[chip-{compiler}]', or in a checkout "
          f"pip install -e '.[chip-{compiler}]'")


def compile_round(chip: chip_files.Chip, flags: Sequence[str], *,
                  hlo: str = '', unknown_trips: int = 1) -> CompiledRound:
  """Compiles the round of a config for a chip, in a process of its own.

  Args:
    chip: the chip that the flags name.
    flags: the flags of `fedu_jax.plan`, with --chip.
    hlo: a file for the text of the program; '' for none.
    unknown_trips: the turns of a loop that the text does not say.

  Raises:
    BadInput: the compiler is not installed, or refuses the config or the chip.
    DoesNotFit: the compiler finds too little memory on the chip.
  """
  if lacking := missing(chip.compiler):
    raise BadInput(lacking)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(hlo or os.path.join(folder, 'round.hlo'))
    found = _run([*flags, f'--hlo={path}'], chip.compiler)
    if 'refused' in found:
      raise DoesNotFit(found['refused'])
    text = path.read_text()
  peak = (found['arguments'] + found['results'] - found['aliased']
          + found['temporary'])
  return CompiledRound(
      program_counts.count(text, unknown_trips=unknown_trips), peak,
      found['arguments'], found['temporary'], found['seconds'], text)


def _run(flags: list[str], compiler: str) -> dict[str, Any]:
  """Runs the process; returns the object that it prints."""
  done = subprocess.run(
      [sys.executable, '-m', 'fedu_jax.plan.chip_compiler', *flags],
      env=os.environ | chip_compiler.ENVIRONMENT[compiler], text=True,
      capture_output=True, check=False)
  lines = done.stderr.strip().splitlines()
  if done.returncode == BadInput.code:
    raise BadInput(lines[-1].removeprefix('error: '))
  if done.returncode or not done.stdout.strip():
    end = lines[-1][:300] if lines else 'it said nothing'
    raise BadInput(f'the compiler process ended with {done.returncode}: {end}')
  return json.loads(done.stdout.strip().splitlines()[-1])
