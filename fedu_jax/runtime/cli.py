"""The parts that all commands share: flags, help and exit codes."""

from collections.abc import Callable
import contextlib
import os
import sys
import textwrap
from typing import NoReturn

from absl import app
from absl import flags
from absl import logging
import jax
from rich.console import Console

from fedu_jax.runtime import accelerators
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import machine
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput, Ending, Unsaved

_HELP = ('help', 'h', '?', 'helpshort', 'helpfull')
_CODES = """\
exit codes: 0 done; 2 refused, nothing was touched; 3 another host was lost;
4 done, but not all could be written; 5 interrupted, start again to go on;
6 the numbers went wrong; 7 memory ran out, what is saved stays. Each but 0
comes with one line on stderr."""


def run(main: Callable[[list[str]], None],
        parse: Callable[[list[str]], list[str]]) -> NoReturn:
  """Runs a command: parses its flags, calls it, and exits.

  Args:
    main: the command, called with the result of `parse`.
    parse: parses the command line.
  """
  machine.open_streams()
  code: object = 0
  try:
    app.run(main, flags_parser=parse)
  except SystemExit as end:
    code = end.code
  _close_stdout()
  sys.exit(code)


def leave(ending: Ending) -> NoReturn:
  """Exits with the ending's exit code, after one line on stderr."""
  try:
    print('error:', ' '.join(str(ending).split()), file=sys.stderr, flush=True)
    sys.stdout.flush()
  except OSError:  # a full disk or no reader; Python would change the exit code
    os._exit(ending.code)
  sys.exit(ending.code)


def refuse(message: object) -> NoReturn:
  """Exits as for bad input, with a message."""
  leave(BadInput(message))


def parse(argv: list[str], *, about: str | None, arguments: int = 0,
          explain: Callable[[Exception], str] = lambda error: '',
          more: Callable[[bool], str] = lambda whole: '') -> list[str]:
  """Parses the flags. Exits with code 2 if one is wrong, with 0 after help.

  Args:
    argv: the command line.
    about: the first text of the help: the command's purpose and an example.
    arguments: the number of arguments, besides flags, that are allowed.
    explain: turns an error into a message, or '' if it does not know the error.
    more: the last text of the help, given whether --helpfull was used.

  Returns:
    The program's name and the arguments.
  """
  logging.set_verbosity(logging.ERROR)  # absl would add lines to our message
  for flag in argv[1:]:
    if flag.startswith('-') and flag.lstrip('-') in _HELP:
      _help(about or '', more(flag.lstrip('-') == 'helpfull'))
  try:
    rest = flags.FLAGS(argv)
  except Exception as error:
    refuse(explain(error) or f'in the flags: {error} ({type(error).__name__})')
  if len(rest) > 1 + arguments:
    refuse(f'unexpected argument {rest[-1]!r}: flags are --name=value')
  return rest


def _help(about: str, more: str) -> NoReturn:
  """Prints the help and exits."""
  text = [about.strip(), '\nflags:']
  for module, own in flags.FLAGS.flags_by_module_dict().items():
    if module in (sys.argv[0], '__main__') or module.startswith('fedu_jax'):
      for flag in own:
        usual = '' if flag.default in (None, '', False) else (
            f' (default: {flag.default})')
        text += textwrap.wrap(
            f'--{flag.name}: {flag.help}{usual}', 79, initial_indent='  ',
            subsequent_indent='      ', break_on_hyphens=False)
  try:
    print('\n'.join(text + [''] * bool(more) + [more, '', _CODES]))
  except OSError:
    pass  # nothing reads it
  sys.exit(0)


def _close_stdout() -> None:
  """Flushes stdout; a failure to write does not change the exit code."""
  try:
    sys.stdout.flush()
  except OSError:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # Python flushes again when it exits
    os.close(nowhere)


def see_printed(console: Console) -> None:
  """Raises an error if lines could not be printed.

  Args:
    console: a console made by `terminal.console`.

  Raises:
    Unsaved: something could not be printed.
  """
  if why := terminal.unprinted(console):
    raise Unsaved(f'stdout cannot be written ({why}): '
                  f'{durable_files.advice(why)}, and ask again')


def see_devices(devices: str = 'auto') -> None:
  """Checks that JAX finds a device, and warns if it fell back to the CPU.

  Args:
    devices: the value of `config.devices`.

  Raises:
    BadInput: it finds none, or one of another kind than `devices` names; the
      message has JAX's reason.
  """
  if line := accelerators.see(devices):
    with contextlib.suppress(OSError):
      print('warning:', line, file=sys.stderr, flush=True)


def keep_compiled_programs() -> None:
  """Caches compiled programs on disk, for later starts of the same config.

  JAX's variables take precedence: JAX_COMPILATION_CACHE_DIR sets another
  folder, and JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.
  """
  if 'JAX_COMPILATION_CACHE_DIR' in os.environ or (
      not jax.config.values['jax_enable_compilation_cache']):
    return
  if note := machine.cache_note():
    with contextlib.suppress(OSError):
      print(f'note: {note}', flush=True)
  if folder := machine.user_cache('compiled'):
    jax.config.update('jax_compilation_cache_dir', str(folder))
