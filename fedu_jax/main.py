"""Trains a federation from a config, and scores its encoder.

  python -m fedu_jax.main --config=quickstart --workdir=/tmp/digits
  python -m fedu_jax.main --config=smoke --config.rounds=1 --workdir=/tmp/smoke
"""

from absl import flags
from absl import logging

from fedu_jax.runtime import accelerators
from fedu_jax.runtime import cli
from fedu_jax.runtime import gpu_settings
from fedu_jax.runtime import multihost
from fedu_jax.runtime import paths
from fedu_jax.runtime import signals
from fedu_jax.runtime.errors import Ending
from fedu_jax.training import train
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_flag

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of this run, made if absent. Started again '
    'with the same config, a run goes on where it stopped.')
_EXTEND = flags.DEFINE_boolean(
    'extend', False, 'Let the run in --workdir go on to the rounds of --config,'
    ' which are more than it had. The learning rate follows the new schedule.')


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags, and loads the config file among them."""
  return config_flag.parse(argv, _CONFIG, about=__doc__,
                           workdir=(_WORKDIR, '/tmp/run'))


def main(_: list[str]) -> None:
  """Runs the config, or exits with one line that says why not."""
  logging.set_verbosity(logging.ERROR)
  signals.listen()
  try:
    workdir = paths.workdir(str(_WORKDIR.value))
    config = checks.checked(_CONFIG.value)
    cli.keep_compiled_programs()
    accelerators.choose(config.devices)
    if config.deterministic:
      gpu_settings.make_deterministic()
    with multihost.joined(**config.distributed):
      cli.see_devices(config.devices)
      train.train_and_evaluate(config, str(workdir),
                               extend=bool(_EXTEND.value))
  except Ending as ending:
    cli.leave(ending)


if __name__ == '__main__':
  cli.run(main, _parse)
