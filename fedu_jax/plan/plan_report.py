"""Prints a plan: sizes, memory, traffic, time, and what does not fit."""

from rich import box
from rich.console import Console
from rich.table import Table

from fedu_jax.training import forecast
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import memory_needs
from fedu_jax.training.engine.recipe import Recipe


def show_sizes(found: forecast.Forecast, console: Console) -> None:
  """Prints the devices, the memory and the traffic of a plan.

  Args:
    found: the forecast.
    console: the console to print on.
  """
  sizes = found.sizes
  of = '' if sizes.group == 1 else f' of g = {sizes.group} each'
  console.print(
      f'clients: K = {sizes.clients:,}, of whom M = {sizes.cohort:,} train in '
      f'a round, m = {sizes.at_once:,} at once on a device, by '
      f'{found.execution}; between rounds they are kept on the {sizes.store}\n'
      f'{"groups of devices" if of else "devices"}: n = {sizes.groups:,}{of}')
  device = cost_model.device_memory(sizes, found.program)
  host = cost_model.host_memory(sizes)
  _print(console, 'memory', cost_model.of_bytes, [
      cost_model.Line("a client's networks", sizes.state, 'S'),
      cost_model.Line('the online network', sizes.network, 'O'),
      cost_model.Line("a client's upload", sizes.upload, 'U'),
      cost_model.Line("a client's download", sizes.download, 'V'),
      cost_model.Line("a client's images", sizes.images,
                      'D, as of the largest'),
      cost_model.Line('a chunk of its images', sizes.chunk,
                      f'{sizes.chunk_steps:,} steps; two are on a device'),
      cost_model.Line('working memory of a round', found.working,
                      'of its program, but networks, images'),
      device, host, cost_model.disk(sizes)])
  _print(console, 'traffic of a round', cost_model.of_bytes,
         cost_model.traffic(sizes, in_sums=found.in_sums))
  console.print(
      f'Device memory: {found.note}. Compilers lay memory out in their own '
      "way; only a CPU's has been compared with runs."
      if found.note else 'Device memory: at least, by the formula. The round '
      'was not compiled, since even that does not fit.')


def show_feed(sizes: cost_model.Sizes, step: float, console: Console) -> None:
  """Prints what a step needs of the link, if images come in chunks.

  Args:
    sizes: the sizes of the federation.
    step: the least seconds of a step on a device.
    console: the console to print on.
  """
  if sizes.chunk:
    console.print(
        f'images: {cost_model.of_bytes(sizes.batch)} a step from the host to a '
        f'device. A link of less than {cost_model.of_bytes(sizes.batch / step)}'
        '/s would bound a step, by the model of its time.')


def show_fit(recipe: Recipe, found: forecast.Forecast,
              machine: forecast.Machine, console: Console) -> None:
  """Prints which memory does not fit, and what would.

  Args:
    recipe: the recipe of the federation.
    found: the forecast of the recipe.
    machine: the machine with the memories that must suffice.
    console: the console to print on.
  """
  broken = memory_needs.lacking(found.sizes, machine.memories, found.program)
  console.print(f'breaks first: {", ".join(broken) or "no memory"}')
  if broken:
    console.print('to make it fit: '
                  + memory_needs.change(recipe, found.sizes, machine.memories,
                                        found.program))


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
  show_sizes(found, console)
  times = cost_model.seconds(
      sizes, rates, found.per_image,
      cost_model.traffic(sizes, in_sums=found.in_sums))
  real = cost_model.deployed(sizes, rates)
  _print(console, 'time', cost_model.of_seconds, times)
  _print(console, 'more for a round, if clients were real',
         cost_model.of_seconds, real)
  console.print(
      f'F = {cost_model.of_operations(found.per_image)} for an image in a '
      f'step, R = {cost_model.of_operations(rates.compute)}/s, {how_fast}; '
      f'L = {cost_model.of_bytes(rates.link)}/s, '
      f'N = {cost_model.of_bytes(rates.network)}/s, '
      f'P = {cost_model.of_bytes(rates.uplink)}/s')
  parts = [x for x in times if x.what not in (cost_model.ROUND,
                                              cost_model.ALL_ROUNDS)]
  console.print(
      f'longest: {cost_model.longest(parts)}; if clients were real, '
      f'{cost_model.longest(parts + real)}')
  images = sizes.images_trained / sizes.steps  # of a step
  show_feed(sizes, images * found.per_image / (sizes.group * rates.compute),
            console)
  show_fit(recipe, found, machine, console)


def _print(console, title, text, lines) -> None:
  table = Table(box=box.SIMPLE, title=title, show_header=False,
                title_justify='left')
  for line in lines:
    if line.value:  # no row for 0
      table.add_row(line.what, text(line.value), line.how)
  console.print(table)
