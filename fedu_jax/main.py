"""Flags, devices and exit codes: `python -m fedu_jax.main --config=...`."""

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from fedu_jax import command
from fedu_jax import hosts
from fedu_jax import settings
from fedu_jax import stops
from fedu_jax import train
from fedu_jax.errors import Ending

try:
  _CONFIG = config_flags.DEFINE_config_file(
      'config', None, 'A file with get_config(), such as configs/cifar10.py. '
      'Any value can be changed: --config.rounds=2.', lock_config=True)
except flags.Error as no_flagfile:  # --flagfile is read as early as this
  command.refuse(f'in the flags: {no_flagfile}')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of this run. Started again with the same '
    'config, a run goes on where it stopped.')


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags, and loads the config file among them."""
  return command.parse_config(argv, _CONFIG, workdir=(_WORKDIR, '/tmp/run'))


def main(_: list[str]) -> None:
  """Runs the config, or says in one line why it cannot."""
  logging.set_verbosity(logging.ERROR)
  stops.listen()
  command.keep_compiled_programs()
  try:
    settings.check(_CONFIG.value)
    with hosts.joined(**_CONFIG.value.distributed):
      train.train_and_evaluate(_CONFIG.value, str(_WORKDIR.value))
  except Ending as ending:
    command.leave(ending)


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
