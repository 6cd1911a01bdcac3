"""Predicts the memory, traffic and time of a config, before it runs.

  python -m fedu_jax.plan --config=cifar10 --chips=256 \\
      --config.clients=256 --memory=80e9 --rate=100e12 --network=50e9

It reads no data and needs no workdir. Memory is the figure of this machine's
compiler for the program of a round. Traffic is counted in bytes. Time is a
model, see `benchmarks/SCALING.md`.
"""

import os
from typing import Any

from absl import flags
from absl import logging
import jax
from rich import box
from rich.console import Console
from rich.table import Table

from fedu_jax.runtime import accelerators
from fedu_jax.runtime import cli
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import Ending
from fedu_jax.training import forecast
from fedu_jax.training import step_cost
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_flag
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import memory_needs
from fedu_jax.training.engine import placement
from fedu_jax.training.engine.recipe import Recipe

_CONFIG = config_flag.define()
_CHIPS = flags.DEFINE_integer(
    'chips', 0, 'Devices; 0: config.devices, or those here.', lower_bound=0)
_EXAMPLES = flags.DEFINE_integer(
    'examples', 0, 'Training images; needed if the data is not digits or '
    'CIFAR.', lower_bound=0)
_IMAGE_SIZE = flags.DEFINE_integer(
    'image_size', 0, 'Pixels of a side; needed as --examples is, if '
    'data.image_size is 0.', lower_bound=0)
_CLASSES = flags.DEFINE_integer(
    'classes', 0, 'Classes; needed as --examples is, if images are split by '
    'class.', lower_bound=0)
_MEMORY = flags.DEFINE_float(
    'memory', 0, 'Bytes of a device; 0: of one here.', lower_bound=0)
_HOST_MEMORY = flags.DEFINE_float(
    'host_memory', 0, 'Bytes of the host; 0: of this one.', lower_bound=0)
_RATE = flags.DEFINE_float(
    'rate', 0, 'Operations a second that a device sustains in training; 0: '
    "measured here, by some steps of the config's.", lower_bound=0)
# The defaults are about 10 Gbit/s, 10 Mbit/s, and a PCIe slot.
_NETWORK = flags.DEFINE_float(
    'network', 1.25e9, 'Bytes a second between devices, and into the server.',
    lower_bound=1)
_UPLINK = flags.DEFINE_float(
    'uplink', 1.25e6, 'Bytes a second that a real client sends.', lower_bound=1)
_LINK = flags.DEFINE_float(
    'link', 4e9, 'Bytes a second between the host, or its disk, and its '
    'devices.', lower_bound=1)


def _parse(argv: list[str]) -> list[str]:
  return config_flag.parse(argv, _CONFIG, about=__doc__)


def show(recipe: Recipe, found: forecast.Forecast, machine: forecast.Machine,
         rates: cost_model.Rates, how_fast: str, console: Console) -> None:
  """Prints a plan, and the memory or time that is the first limit.

  Args:
    recipe: the recipe of the federation.
    found: the forecast of the recipe.
    machine: the machine with the memories that must suffice.
    rates: the rates of the machine.
    how_fast: says where the rate of operations is from.
    console: the console to print on.
  """
  sizes = found.sizes
  of = '' if sizes.group == 1 else f' of g = {sizes.group} each'
  console.print(
      f'clients: K = {sizes.clients:,}, of whom M = {sizes.cohort:,} train in '
      f'a round, m = {sizes.at_once:,} at once on a device; between '
      f'rounds they are kept on the {sizes.store}\n'
      f'{"groups of devices" if of else "devices"}: n = {sizes.groups:,}{of}')
  device = cost_model.device_memory(sizes, found.program)
  host = cost_model.host_memory(sizes)
  sent = cost_model.traffic(sizes, in_sums=found.in_sums)
  times = cost_model.seconds(sizes, rates, found.per_image, sent)
  real = cost_model.deployed(sizes, rates)
  _print(console, 'memory', cost_model.of_bytes, [
      cost_model.Line("a client's networks", sizes.state, 'S'),
      cost_model.Line('the online network', sizes.network, 'O'),
      cost_model.Line("a client's upload", sizes.upload, 'U'),
      cost_model.Line("a client's download", sizes.download, 'V'),
      cost_model.Line("a client's images", sizes.images,
                      'D, as of the largest'),
      cost_model.Line('working memory of a round', found.working,
                      'of its program, but networks, images'),
      device, host, cost_model.disk(sizes)])
  _print(console, 'traffic of a round', cost_model.of_bytes, sent)
  _print(console, 'time', cost_model.of_seconds, times)
  _print(console, 'more for a round, if clients were real',
         cost_model.of_seconds, real)
  console.print(
      f'F = {cost_model.of_operations(found.per_image)} for an image in a '
      f'step, R = {cost_model.of_operations(rates.compute)}/s, {how_fast}; '
      f'L = {cost_model.of_bytes(rates.link)}/s, '
      f'N = {cost_model.of_bytes(rates.network)}/s, '
      f'P = {cost_model.of_bytes(rates.uplink)}/s')
  console.print(
      f'Device memory: {found.note}, by the compiler for '
      f'{jax.default_backend().upper()}. Compilers for other devices lay '
      "memory out in their own way; only a CPU's has been compared with runs."
      if found.note else 'Device memory: at least, by the formula. The round '
      'was not compiled, since even that does not fit.')
  parts = [x for x in times if x.what not in (cost_model.ROUND,
                                              cost_model.ALL_ROUNDS)]
  broken = memory_needs.lacking(sizes, machine.memories, found.program)
  console.print(
      f'breaks first: {", ".join(broken) or "no memory"}; of time, '
      f'{cost_model.longest(parts)}; if clients were real, '
      f'{cost_model.longest(parts + real)}')
  if broken:
    console.print('to make it fit: '
                  + memory_needs.change(recipe, sizes, machine.memories,
                                        found.program))


def _print(console, title, text, lines) -> None:
  table = Table(box=box.SIMPLE, title=title, show_header=False,
                title_justify='left')
  for line in lines:
    if line.value:  # no row for 0
      table.add_row(line.what, text(line.value), line.how)
  console.print(table)


def main(_: list[str]) -> None:
  """Prints the plan of a config, or exits with one line that says why not."""
  logging.set_verbosity(logging.ERROR)
  config: Any = _CONFIG.value
  try:
    with host_memory.watched(
        'plan for fewer devices or a smaller config.model'):
      found, machine, rate, how_fast = _plan(config)
    console = terminal.console()
    show(build.recipe(config), found, machine, cost_model.Rates(
        rate, _LINK.value, _NETWORK.value, _UPLINK.value), how_fast, console)
    cli.see_printed(console)
  except Ending as ending:
    cli.leave(ending)


def _plan(config) -> tuple[forecast.Forecast, forecast.Machine, float, str]:
  """Returns the forecast, its machine, the rate of operations and its source.
  """
  checks.check(config)
  cli.keep_compiled_programs()  # the run needs the same programs
  _see_enough_devices(config)
  accelerators.choose('auto')
  cli.see_devices()
  data = forecast.data_of(
      config, examples=_EXAMPLES.value, image_size=_IMAGE_SIZE.value,
      classes=_CLASSES.value)
  shared_by = 0
  if not (_CHIPS.value or _MEMORY.value or _HOST_MEMORY.value
          or placement.own_memory()):
    # The CPUs here, not another machine's chips.
    shared_by = min(config.clients, accelerators.wanted(config.devices).most
                    or len(jax.devices()))
  machine = forecast.Machine(
      _CHIPS.value,
      _MEMORY.value or placement.own_memory() or host_memory.host_bytes(),
      _HOST_MEMORY.value or host_memory.host_bytes(), shared_by)
  found = forecast.forecast(config, data, machine)
  if _RATE.value:
    return found, machine, float(_RATE.value), 'as given'
  return (found, machine,
          step_cost.measured(build.recipe(config), data.train_images.shape[1:],
                             found.per_image, seed=config.seed),
          f'as measured on a device here ({jax.devices()[0].device_kind})')


def _see_enough_devices(config) -> None:
  """Makes the CPU two groups of devices, before JAX looks for devices."""
  several = _CHIPS.value > 1 or (
      not _CHIPS.value and accelerators.wanted(config.devices).most > 1)
  if several and 'host_platform_device_count' not in os.environ.get(
      'XLA_FLAGS', ''):
    jax.config.update('jax_num_cpu_devices', 2 * config.devices_per_client)


if __name__ == '__main__':
  cli.run(main, _parse)
