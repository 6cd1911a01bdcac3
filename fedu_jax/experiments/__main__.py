"""Runs the experiments of the papers, and writes their tables and figures.

  python -m fedu_jax.experiments --list
  python -m fedu_jax.experiments predictor,transfer --workdir=/tmp/work
  python -m fedu_jax.experiments predictor --from=/tmp/work --workdir=/tmp/again
"""

import importlib
import types

from absl import flags
from absl import logging
from rich.console import Console

from fedu_jax import experiments
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import cli
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import gpu_settings
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import paths
from fedu_jax.runtime import signals
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import Ending, Unsaved

_LIST = flags.DEFINE_bool('list', False, 'Name the experiments, and end.')
_SCALE = flags.DEFINE_string(
    'scale', 'smoke', 'How large: smoke (minutes), cpu (hours) or paper (needs '
    'an accelerator).')
_SEEDS = flags.DEFINE_integer('seeds', 1, 'Runs of each arm.', lower_bound=1,
                              upper_bound=1000)
_TOGETHER = flags.DEFINE_integer(
    'seeds_together', 1, 'Seeds that train as one vmapped program, where '
    'memory allows.', lower_bound=1, upper_bound=1000)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Where runs are kept and reports are written. Started '
    'again, the queue goes on where it stopped.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', "The folder of TFDS's data sets; if not given, TFDS's own "
    'choice: $TFDS_DATA_DIR or ~/tensorflow_datasets.')
_FROM = flags.DEFINE_string(
    'from', None, 'An earlier --workdir, or benchmarks/results/cpu: draws its '
    'experiments again with all their seeds, without a run.')


def _parse(argv: list[str]) -> list[str]:
  return cli.parse(
      argv, about=__doc__, arguments=1,
      more=lambda whole: f'experiments: {", ".join(experiments.NAMES)}')


def main(argv: list[str]) -> None:
  """Runs the experiments and writes reports, or exits with one line."""
  logging.set_verbosity(logging.ERROR)
  signals.listen()
  console = terminal.console()
  try:
    modules = {name: importlib.import_module(
        f'fedu_jax.experiments.tables.{name}')
               for name in experiments.NAMES}
    from fedu_jax.experiments import experiment as plans
    from fedu_jax.experiments import redraw
    from fedu_jax.experiments import runner
    from fedu_jax.experiments import write_report
  except ModuleNotFoundError as error:
    cli.refuse(f'{error}: reports of experiments need matplotlib and jinja2: '
               'pip install matplotlib jinja2')
  if _LIST.value:
    _list(modules, console)
    return
  names = _names(argv, modules)
  if _SCALE.value not in plans.SCALES:
    cli.refuse(f'--scale is {_SCALE.value!r}: choose '
               f'{", ".join(plans.SCALES)}')
  if _WORKDIR.value is None:
    cli.refuse('--workdir is missing; for example --workdir=/tmp/work')
  scale = plans.SCALES[str(_SCALE.value)]
  try:
    workdir = paths.workdir(str(_WORKDIR.value))
    cli.keep_compiled_programs()
    accelerators.choose('auto')
    if note := gpu_settings.share():
      terminal.say(console, note)
    cli.see_devices()
    several = {name: modules[name].plan(scale) for name in names}
    with host_memory.watched('what is done stays: end other programs, lower '
                             '--seeds_together, or choose a smaller --scale'):
      if _FROM.value:
        found = redraw.results(
            several, paths.typed(str(_FROM.value), '--from'), scale)
      else:
        found = runner.run(
            several, workdir, seeds=int(_SEEDS.value or 1),
            together=int(_TOGETHER.value or 1), data_dir=str(_DATA_DIR.value),
            console=console)
      for name, results in found:
        where = write_report.write(several[name], results,
                                   workdir / f'{name}-{scale.name}', scale)
        console.print((where.parent / 'tables.md').read_text(), markup=False)
        console.print(f'written: {where}')
  except Ending as ending:
    cli.leave(ending)
  except (FileExistsError, NotADirectoryError, PermissionError) as error:
    cli.refuse(f'--workdir is {workdir}, where no results can be written '
               f'({durable_files.reason(error)}): '
               f'{durable_files.advice(error)}, or choose another')
  except OSError as error:
    cli.leave(Unsaved(
        f'{error}: {durable_files.advice(error)}, and start again to go on'))


def _list(modules: dict[str, types.ModuleType], console: Console) -> None:
  """Prints each experiment with the first line of its docstring."""
  for name, module in modules.items():
    what = (module.__doc__ or '').partition('\n')[0]  # python -OO has none
    console.print(f'{name:<20}{what}', soft_wrap=True)
  try:
    cli.see_printed(console)
  except Ending as ending:
    cli.leave(ending)


def _names(argv: list[str], modules: dict[str, types.ModuleType]) -> list[str]:
  """Returns the experiments that a command names, or exits with one line."""
  if len(argv) < 2:
    cli.refuse(f'name an experiment: {", ".join(modules)}')
  names = argv[1].split(',')
  for name in names:
    if name not in modules:
      cli.refuse(f'no experiment {name!r}: choose {", ".join(modules)}')
  return names


if __name__ == '__main__':
  cli.run(main, _parse)
