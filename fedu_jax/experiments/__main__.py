"""Runs the experiments of the papers, and writes their tables and figures.

  python -m fedu_jax.experiments --list
  python -m fedu_jax.experiments predictor,transfer --workdir=/tmp/work
"""

import importlib

from absl import flags
from absl import logging

from fedu_jax import command
from fedu_jax import experiments
from fedu_jax import files
from fedu_jax import memory
from fedu_jax import paths
from fedu_jax import screen
from fedu_jax import stops
from fedu_jax.errors import Ending, Unsaved

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


def _parse(argv: list[str]) -> list[str]:
  return command.parse(
      argv, about=__doc__, arguments=1,
      more=lambda whole: f'experiments: {", ".join(experiments.NAMES)}')


def main(argv: list[str]) -> None:
  """Runs the queue and writes the report, or says in one line why it cannot."""
  logging.set_verbosity(logging.ERROR)
  stops.listen()
  console = screen.console()
  try:
    modules = {name: importlib.import_module(f'fedu_jax.experiments.{name}')
               for name in experiments.NAMES}
    from fedu_jax.experiments import page
    from fedu_jax.experiments import plan as plans
    from fedu_jax.experiments import queue
  except ModuleNotFoundError as error:
    command.refuse(f'{error}: the figures of experiments need matplotlib; pip '
                   'install matplotlib')
  if _LIST.value:
    for name, module in modules.items():
      what = (module.__doc__ or '').partition('\n')[0]  # none by python -OO
      console.print(f'{name:<20}{what}', soft_wrap=True)
    try:
      command.see_printed(console)
    except Ending as ending:
      command.leave(ending)
    return
  if len(argv) < 2:
    command.refuse(f'name an experiment: {", ".join(modules)}')
  names = argv[1].split(',')
  for name in names:
    if name not in modules:
      command.refuse(f'no experiment {name!r}: choose {", ".join(modules)}')
  if _SCALE.value not in plans.SCALES:
    command.refuse(f'--scale is {_SCALE.value!r}: choose '
                   f'{", ".join(plans.SCALES)}')
  if _WORKDIR.value is None:
    command.refuse('--workdir is missing; for example --workdir=/tmp/work')
  scale = plans.SCALES[str(_SCALE.value)]
  try:
    workdir = paths.workdir(str(_WORKDIR.value))
    command.keep_compiled_programs()
    command.see_devices()
    several = {name: modules[name].plan(scale) for name in names}
    with memory.watched('what is done stays: end other programs, lower '
                        '--seeds_together, or choose a smaller --scale'):
      for name, results in queue.run(
          several, workdir, seeds=int(_SEEDS.value or 1),
          together=int(_TOGETHER.value or 1), data_dir=str(_DATA_DIR.value),
          console=console):
        where = page.write(several[name], results,
                           workdir / f'{name}-{scale.name}', scale)
        console.print((where.parent / 'tables.md').read_text(), markup=False)
        console.print(f'written: {where}')
  except Ending as ending:
    command.leave(ending)
  except (FileExistsError, NotADirectoryError, PermissionError) as error:
    command.refuse(f'--workdir is {workdir}, where no results can be written '
                   f'({files.reason(error)}): {files.advice(error)}, or choose '
                   'another')
  except OSError as error:
    command.leave(Unsaved(
        f'{error}: {files.advice(error)}, and start again to go on'))


if __name__ == '__main__':
  command.run(main, _parse)
