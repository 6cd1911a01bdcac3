"""Flags, devices and exit codes: `python -m fedu_jax.main --config=...`."""

import os
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging
import jax
from ml_collections import config_flags

from fedu_jax import sources
from fedu_jax import train
from fedu_jax.errors import BadInput

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A file with get_config(), such as configs/cifar10.py. Any '
    'value can be changed: --config.rounds=2.', lock_config=True)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of this run. Started again with the same '
    'config, a run goes on where it stopped.')


def _refuse(message: object) -> None:
  print('error:', ' '.join(str(message).split()), file=sys.stderr)
  sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags; whatever is wrong with them is one line and code 2."""
  try:
    rest = flags.FLAGS(argv)
    given: dict[str, Any] = {
        flag.name: flag.value for flag in (_CONFIG, _WORKDIR)}
    if given['config'] is not None:
      given['config'].items()  # a file that is absent is reported only here
  except ModuleNotFoundError as error:
    _refuse(f'--config cannot be loaded ({error}): start from the folder that '
            'holds configs/')
  except Exception as error:
    # A config file is code, and can raise anything.
    _refuse(f'in the flags or the config: {error} ({type(error).__name__})')
  if len(rest) > 1:
    _refuse(f'unexpected argument {rest[1]!r}: flags are --name=value')
  for name, example in (('config', 'configs/quickstart.py'),
                        ('workdir', '/tmp/run')):
    if given[name] is None:
      _refuse(f'--{name} is missing; for example --{name}={example}')
  return rest


def _keep_compiled_programs() -> None:
  """Lets the next start of a config load what this one compiles.

  JAX's own variables go before: JAX_COMPILATION_CACHE_DIR for another folder,
  JAX_ENABLE_COMPILATION_CACHE=false for none.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir',
                      str(sources.user_cache('compiled')))


def main(_: list[str]) -> None:
  """Runs the config, or says in one line why it cannot."""
  logging.set_verbosity(logging.ERROR)
  _keep_compiled_programs()
  try:
    train.train_and_evaluate(_CONFIG.value, str(_WORKDIR.value))
  except BadInput as error:
    _refuse(error)


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
