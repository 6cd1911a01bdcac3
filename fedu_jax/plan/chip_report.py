"""Prints what a chip's compiler made of a round, and the floor of its time."""

from rich import box
from rich.console import Console
from rich.table import Table

from fedu_jax.plan.chip_files import Chip
from fedu_jax.plan.chip_model import Floor
from fedu_jax.plan.chip_model import Times
from fedu_jax.plan.chip_process import CompiledRound
from fedu_jax.plan.program_counts import Work
from fedu_jax.training.engine import cost_model

_KERNELS = {
    'gpu': 'A kernel is one launch on the GPU.',
    'tpu': 'A kernel is a fusion, a convolution or the like, which the TPU '
           'starts by itself. Bytes are those of main memory, with padding.'}


def compiled(found: CompiledRound, chip: Chip, sizes: cost_model.Sizes,
             console: Console) -> None:
  """Prints the figures of the compiler.

  Args:
    found: the compiled round.
    chip: the chip.
    sizes: the sizes of the federation.
    console: the console to print on.
  """
  counts = found.counts
  console.print(
      f'{chip.name}, compiled here in {cost_model.of_seconds(found.seconds)}. '
      f'The round takes {cost_model.of_bytes(found.peak)} of its memory '
      f'({cost_model.of_bytes(chip.memory)}, of which a program may take '
      f'{cost_model.of_bytes(chip.usable)}).')
  table = Table(box=box.SIMPLE, title="the compiler's program",
                title_justify='left')
  for column in ('', 'runs', 'kernels', 'bytes', 'copies', 'bytes of copies'):
    table.add_column(column, justify='right' if column else 'left')
  if step := counts.step:
    trips = '' if step.trips else ' (as many as the data says)'
    table.add_row('a step', f'{step.turns:,}{trips}', *_row(step.work))
  table.add_row('the rest of a round', '1', *_row(counts.rest))
  console.print(table)
  if sizes.runs > 1:
    each = (f'{sizes.chunk_steps} steps' if sizes.chunk else
            f'{sizes.at_once} clients of a device')
    console.print(f'The program runs {sizes.runs} times a round, for {each} '
                  'each.')
  of = '; '.join(f'{x.kind}, {x.times} times, {cost_model.of_bytes(x.bytes)}'
                 for x in counts.collectives)
  console.print(f'between devices: {of or "nothing"}')
  console.print(
      f'to the host within the program: '
      f'{", ".join(counts.host_transfers) or "nothing"}; conditionals in a '
      f'step: {step.conditionals if step else counts.conditionals}; copies of '
      'what a step hands to the next: '
      f'{cost_model.of_bytes(step.carry_copied if step else 0)}; arguments '
      f'written in place: {counts.donated} of {counts.arguments}')
  console.print(_KERNELS[chip.compiler])


def _row(work: Work) -> list[str]:
  return [f'{work.kernels:,}', cost_model.of_bytes(work.bytes),
          f'{work.copies:,}', cost_model.of_bytes(work.copied)]


def floor(found: Floor, chip: Chip, kind: str, console: Console) -> None:
  """Prints the model of the time.

  Args:
    found: the floor.
    chip: the chip.
    kind: the arithmetic of the products, a name in `Chip.peak`.
    console: the console to print on.
  """
  table = Table(box=box.SIMPLE, title='a model of the time, not a measurement',
                title_justify='left')
  for column in ('', 'products', 'bandwidth', 'launches', 'longest', 'sum'):
    table.add_column(column, justify='right' if column else 'left')
  table.add_row(f'a step of {found.images:,.0f} images', *_times(found.step))
  table.add_row('the rest of a round', *_times(found.rest))
  console.print(table)
  console.print(
      f'A step is bound by {found.step.bound}. From the longest of the three '
      'to their sum:')
  for what, value, text in (('a round', found.round, cost_model.of_seconds),
                            ('all rounds', found.run, cost_model.of_seconds),
                            ('images a second, of all devices', found.rate,
                             lambda x: f'{x:,.0f}')):
    console.print(f'  {what}: {text(value[0])} to {text(value[1])}')
  console.print(
      f'Peaks of {chip.name}: {cost_model.of_operations(chip.peak[kind])}/s '
      f'({kind.replace("_default", ", as JAX multiplies it here")}), '
      f'{cost_model.of_bytes(chip.bandwidth)}/s, '
      f'{chip.launch_microseconds:g} us a kernel. Traffic between devices and '
      'with the host, checkpoints and scores are left out. Nothing was timed.')


def _times(times: Times) -> list[str]:
  return [cost_model.of_seconds(x) for x in (*times, times.least, times.most)]
