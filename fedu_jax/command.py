"""What the commands share: exit codes, flags, and compiled programs kept."""

import os
import sys
from typing import Any, NoReturn

from absl import flags
from absl import logging
import jax

from fedu_jax import surroundings
from fedu_jax.errors import BadInput, Ending


def leave(ending: Ending) -> NoReturn:
  """Ends the program with one line on stderr and the ending's exit code."""
  try:
    print('error:', ' '.join(str(ending).split()), file=sys.stderr, flush=True)
    sys.stdout.flush()
  except OSError:  # full, or gone; Python would end with a code of its own
    os._exit(ending.code)
  sys.exit(ending.code)


def refuse(message: object) -> NoReturn:
  """Ends the program as bad input does."""
  leave(BadInput(message))


def parse(argv: list[str], *, arguments: int = 0) -> list[str]:
  """Parses the flags; whatever is wrong with them is refused.

  Args:
    argv: the command line.
    arguments: how many may stand beside the flags.

  Returns:
    The program's name and the arguments.
  """
  logging.set_verbosity(logging.ERROR)  # what is wrong is said in one line
  try:
    rest = flags.FLAGS(argv)
  except ModuleNotFoundError as error:
    refuse(f'a config cannot be loaded ({error}): start from the folder that '
           'holds configs/')
  except Exception as error:
    # A config file is code, and can raise anything.
    refuse(f'in the flags or the config: {error} ({type(error).__name__})')
  if len(rest) > 1 + arguments:
    refuse(f'unexpected argument {rest[-1]!r}: flags are --name=value')
  return rest


def parse_config(argv: list[str], config: flags.FlagHolder,
                 **needed: tuple[flags.FlagHolder, str]) -> list[str]:
  """Parses the flags of a command, and loads the config file among them.

  Args:
    argv: the command line.
    config: the flag that names the file.
    **needed: further flags that must be given, each with an example.

  Returns:
    The program's name.
  """
  rest = parse(argv)
  wanted = {'config': (config, 'configs/quickstart.py')} | needed
  given: dict[str, Any] = {name: flag.value
                           for name, (flag, _) in wanted.items()}
  try:
    if given['config'] is not None:
      given['config'].items()  # a file that is absent is reported only here
  except ModuleNotFoundError as error:
    refuse(f'--config cannot be loaded ({error}): start from the folder that '
           'holds configs/')
  except Exception as error:
    # A config file is code, and can raise anything.
    refuse(f'in the config: {error} ({type(error).__name__})')
  for name, (_, example) in wanted.items():
    if given[name] is None:
      refuse(f'--{name} is missing; for example --{name}={example}')
  return rest


def keep_compiled_programs() -> None:
  """Lets the next start of a config load what this one compiles.

  JAX's own variables go before: JAX_COMPILATION_CACHE_DIR for another folder,
  JAX_ENABLE_COMPILATION_CACHE=false for none.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir',
                      str(surroundings.user_cache('compiled')))
