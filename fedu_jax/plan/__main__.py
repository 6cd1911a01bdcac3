"""Predicts the memory, traffic and time of a config, before it runs.

  python -m fedu_jax.plan --config=cifar10 --chips=256 \\
      --config.clients=256 --memory=80e9 --rate=100e12 --network=50e9

  python -m fedu_jax.plan --config=cifar10 --chip=h100

It reads no data and needs no workdir. Memory is the figure of this machine's
compiler for the program of a round, or with --chip that of the chip's own
compiler. Traffic is counted in bytes. Time is a model, see
`benchmarks/SCALING.md` and `docs/devices.md`.
"""

import os
import sys
from typing import Any

from absl import logging
import jax
from rich.console import Console

from fedu_jax.plan import chip_files
from fedu_jax.plan import chip_model
from fedu_jax.plan import chip_process
from fedu_jax.plan import chip_report
from fedu_jax.plan import plan_flags
from fedu_jax.plan import plan_report
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import cli
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput, Ending
from fedu_jax.training import forecast
from fedu_jax.training import step_cost
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_flag
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import placement


def _parse(argv: list[str]) -> list[str]:
  return config_flag.parse(argv, plan_flags.CONFIG, about=__doc__)


def main(_: list[str]) -> None:
  """Prints the plan of a config, or exits with one line that says why not."""
  logging.set_verbosity(logging.ERROR)
  config: Any = plan_flags.CONFIG.value
  try:
    with host_memory.watched(
        'plan for fewer devices or a smaller config.model'):
      if plan_flags.CHIP.value:
        console = _for_chip(config)
      else:
        found, machine, rate, how_fast = _plan(config)
        console = terminal.console()
        rates = cost_model.Rates(rate, plan_flags.LINK.value,
                                 plan_flags.NETWORK.value,
                                 plan_flags.UPLINK.value)
        plan_report.show(build.recipe(config), found, machine, rates, how_fast,
                         console)
    cli.see_printed(console)
  except Ending as ending:
    cli.leave(ending)


def _for_chip(config) -> Console:
  """Plans for a chip that need not be here; returns the console it printed on.
  """
  chip = chip_files.load(plan_flags.CHIP.value)
  if lacking := chip_process.missing(chip.compiler):
    raise BadInput(lacking)
  checks.check(config)
  accelerators.choose('auto')
  cli.see_devices()
  rounds: list[chip_process.CompiledRound] = []

  def measure(one: forecast.Round) -> tuple[int, str]:
    sizes = one.sizes
    try:
      rounds.append(chip_process.compile_round(
          chip, sys.argv[1:], hlo=plan_flags.HLO.value,
          unknown_trips=sizes.chunk_steps or round(
              sizes.steps / sizes.share)))
    except chip_process.DoesNotFit as refused:
      return int(chip.usable) + 1, (
          f"more than there is, by the chip's compiler: {refused}")
    return rounds[0].peak, f"by {chip.name}'s compiler"
  machine = plan_flags.machine(chip)
  found = forecast.forecast(config, plan_flags.data(), machine,
                            measure=measure)
  recipe, console = build.recipe(config), terminal.console()
  plan_report.show_sizes(found, console)
  for compiled in rounds:
    exact = config.model.convolution == 'exact'
    kind = chip_model.arithmetic(
        recipe.dtype, 'float32' if exact else config.model.precision)
    chip_report.compiled(compiled, chip, found.sizes, console)
    floor = chip_model.floor(compiled.counts, found.sizes, found.per_image,
                             chip, kind)
    chip_report.floor(floor, chip, kind, console)
    plan_report.show_feed(found.sizes, floor.step.least, console)
  plan_report.show_fit(recipe, found, machine, console)
  return console


def _plan(config) -> tuple[forecast.Forecast, forecast.Machine, float, str]:
  """Returns the forecast, its machine, the rate of operations and its source.
  """
  checks.check(config)
  cli.keep_compiled_programs()  # the run needs the same programs
  _see_enough_devices(config)
  accelerators.choose('auto')
  cli.see_devices()
  data = plan_flags.data()
  shared_by = 0
  chips, host = plan_flags.CHIPS.value, plan_flags.HOST_MEMORY.value
  memory = plan_flags.MEMORY.value
  if not (chips or memory or host or placement.own_memory()):
    # The CPUs here, not another machine's chips.
    shared_by = min(config.clients, accelerators.wanted(config.devices).most
                    or len(jax.devices()))
  machine = forecast.Machine(
      chips,
      memory or placement.own_memory() or host_memory.host_bytes(),
      host or host_memory.host_bytes(), shared_by)
  found = forecast.forecast(config, data, machine)
  if plan_flags.RATE.value:
    return found, machine, float(plan_flags.RATE.value), 'as given'
  return (found, machine,
          step_cost.measured(build.recipe(config),
                             step_cost.one_of(data.train_images),
                             found.per_image, seed=config.seed),
          f'as measured on a device here ({jax.devices()[0].device_kind})')


def _see_enough_devices(config) -> None:
  """Makes the CPU two groups of devices, before JAX looks for devices."""
  chips = plan_flags.CHIPS.value
  several = chips > 1 or (
      not chips and accelerators.wanted(config.devices).most > 1)
  if several and 'host_platform_device_count' not in os.environ.get(
      'XLA_FLAGS', ''):
    jax.config.update('jax_num_cpu_devices', 2 * config.devices_per_client)


if __name__ == '__main__':
  cli.run(main, _parse)
