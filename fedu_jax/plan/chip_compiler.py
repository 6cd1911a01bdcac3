"""Compiles the round of a config for a chip that need not be here.

`fedu_jax.plan --chip` runs this module as a process of its own. A compiler for
an absent chip needs other settings of JAX than a plan, and no two libraries for
TPUs fit one process. It takes the flags of the plan, writes the text of the
compiled round to the file --hlo, and prints one JSON object.
"""

import json
import math
import os
import pathlib
import time
from typing import Any

from absl import logging
import jax
from jax.experimental import topologies

from fedu_jax.plan import chip_files
from fedu_jax.plan import plan_flags
from fedu_jax.runtime import cli
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput, Ending
from fedu_jax.training import forecast
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_flag
from fedu_jax.training.engine import device_mesh

# Read by JAX and the compilers when they are loaded.
ENVIRONMENT = {
    # For a GPU: its driver is absent, and there is nothing to time kernels on.
    'gpu': {'JAX_PLATFORMS': 'cuda,cpu', 'CUDA_VISIBLE_DEVICES': '-1',
            'JAX_SKIP_CUDA_CONSTRAINTS_CHECK': '1',
            'XLA_FLAGS': '--xla_gpu_autotune_level=0'},
    # For a TPU: nothing is asked of Google's cloud, and other processes may
    # compile at the same time. libtpu ends at flags that it does not know.
    'tpu': {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '', 'TPU_SKIP_MDS_QUERY': '1',
            'TPU_WORKER_HOSTNAMES': 'localhost',
            'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}}


def described(chip: chip_files.Chip, count: int) -> list[jax.Device]:
  """Returns devices that are only described. They can compile, but not run.

  Args:
    chip: the chip.
    count: the number of devices.

  Raises:
    BadInput: the chip has no slice that large, or its compiler refuses it.
  """
  wanted: dict[str, Any]
  if chip.compiler == 'gpu':
    wanted = dict(platform='cuda', target_config=chip.target,
                  topology=f'1x1x{count}')
  else:
    large = [shape for shape in chip.slices if _chips(shape) >= count]
    if not large:
      raise BadInput(f'--chips is {count}, but the largest slice of '
                     f'{chip.name} that is described is {chip.slices[-1]}')
    wanted = dict(platform='tpu', topology_name=f'{chip.topology}:{large[0]}')
  try:
    found = topologies.get_topology_desc(**wanted).devices
  except Exception as error:  # the compilers raise errors of several kinds
    raise BadInput(f'the compiler for {chip.name} refuses its description: '
                   f'{str(error)[:300]}') from error
  # From here on JAX looks for devices of its own: the CPU is enough.
  jax.config.update('jax_platforms', 'cpu')
  return list(found)[:count]


def _chips(shape: str) -> int:
  return math.prod(map(int, shape.split('x')))


def _measure(one: forecast.Round, chip: chip_files.Chip,
             devices: list[jax.Device], hlo: pathlib.Path) -> dict[str, Any]:
  """Compiles a round; returns bytes on a device, and the seconds it took."""
  sizes = one.sizes
  layout = device_mesh.layout_of(
      devices[:sizes.groups * sizes.group], sizes.groups * one.here,
      sizes.groups)
  began = time.perf_counter()
  try:
    compiled = one.compile(layout)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    # A TPU's compiler knows the memory that there is.
    return {'refused': str(error).splitlines()[0][:300]}
  took = time.perf_counter() - began
  hlo.write_text(compiled.as_text() or '')
  found: Any = compiled.memory_analysis()
  return {'seconds': took, 'chip': chip.name,
          'arguments': found.argument_size_in_bytes,
          'results': found.output_size_in_bytes,
          'aliased': found.alias_size_in_bytes,
          'temporary': found.temp_size_in_bytes}


def main(_: list[str]) -> None:
  """Compiles the round of the flags, or exits with one line."""
  logging.set_verbosity(logging.ERROR)
  flags, config = plan_flags, plan_flags.CONFIG.value
  found: dict[str, Any] = {}

  def measure(one):
    found.update(_measure(one, chip, devices, pathlib.Path(flags.HLO.value)))
    return 1, 'compiled'
  try:
    chip = chip_files.load(flags.CHIP.value)
    devices = described(chip, flags.chip_count())
    checks.check(config)
    with host_memory.watched('plan for a smaller config.model'):
      forecast.forecast(config, plan_flags.data(), plan_flags.machine(chip),
                        measure=measure)
    print(json.dumps(found), flush=True)
  except Ending as ending:
    cli.leave(ending)


if __name__ == '__main__':
  os.environ.pop('JAX_COMPILATION_CACHE_DIR', None)  # seconds are of compiling
  cli.run(main, lambda argv: config_flag.parse(
      argv, plan_flags.CONFIG, about=__doc__))
