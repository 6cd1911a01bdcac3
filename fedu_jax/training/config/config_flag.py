"""The flag --config: a file with get_config(), and flags for its fields."""

from collections.abc import Iterator
import functools
import importlib.machinery
import importlib.util
import re
import sys
import textwrap
import traceback
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags

from fedu_jax import configs
from fedu_jax.runtime import cli
from fedu_jax.runtime import suggest
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config import checks
from fedu_jax.training.config.fields import FIELDS

_MODULE = 'config_file'  # the module name of a config file


def define() -> flags.FlagHolder:
  """Defines the flag."""
  try:
    holder = config_flags.DEFINE_config_file(
        'config', None, 'A shipped config by its name '
        f'({", ".join(configs.names())}), or the path of a file with '
        'get_config(). What follows a colon is passed to it: '
        '--config=methods:simclr.')
  except flags.Error as no_flagfile:  # --flagfile is read as early as this
    cli.refuse(f'in the flags: {no_flagfile}')
  flags.FLAGS['config'].parser = _Parser()
  return holder


class _Parser(flags.ArgumentParser):
  """Loads a config file; an error becomes one line."""

  loaded: Any = None

  def parse(self, argument: str) -> Any:
    """Returns the config of '<name or path>[:<choice>]'.

    Raises:
      BadInput: the file is missing, fails, or returns no config.
    """
    name, *choice = argument.split(':', 1)
    file = str(configs.find(name))
    configs.let_be_imported()
    try:
      loader = importlib.machinery.SourceFileLoader(_MODULE, file)
      spec = importlib.util.spec_from_file_location(
          _MODULE, file, loader=loader)
      assert spec
      sys.modules[_MODULE] = module = importlib.util.module_from_spec(spec)
      loader.exec_module(module)
      found = module.get_config(*choice)
    except Exception as error:  # a config file is code, and can raise any error
      lines = [x.lineno for x in traceback.extract_tb(error.__traceback__)
               if x.filename == file]
      where = f', line {lines[-1]}' if lines else ''
      raise BadInput(f'in the config {file}{where}: {error} '
                     f'({type(error).__name__})') from error
    if not isinstance(found, ml_collections.ConfigDict):
      kind = 'nothing' if found is None else type(found).__name__
      raise BadInput(f'in the config {file}: get_config() returns {kind}, not '
                     'a ConfigDict: start from configs/cifar10.py')
    for field in _unfilled(found):
      raise BadInput(f'in the config {file}: {field} is a placeholder without '
                     'a value: give it one there')
    found.lock()
    self.loaded = found
    return found

  def flag_type(self) -> str:
    """The type's name in the help."""
    return 'a config'


def parse(argv: list[str], config: flags.FlagHolder, *, about: str | None,
          **needed: tuple[flags.FlagHolder, str]) -> list[str]:
  """Parses the flags of a command, and loads the config file among them.

  Args:
    argv: the command line.
    config: the flag that `define` returned.
    about: see `cli.parse`.
    **needed: other flags that must be given, each with an example value.

  Returns:
    The program's name.
  """
  rest = cli.parse(argv, about=about, explain=functools.partial(
      _explained, argv), more=_fields)
  for name, (flag, example) in {
      'config': (config, 'quickstart'), **needed}.items():
    if flag.value is None:
      cli.refuse(f'--{name} is missing; for example --{name}={example}')
  return rest


def _fields(whole: bool) -> str:
  """The help's text on fields.

  Args:
    whole: whether to list all fields.
  """
  if not whole:
    return ('Any field of a config is changed with --config.<field>=<value>, '
            'such as\n--config.rounds=2 or --config.model.width=16. '
            '--helpfull lists\nand explains them. The shipped configs are in\n'
            f'{configs.FOLDER}.')
  lines = ['fields, and their defaults:']
  for field in FIELDS.values():
    lines += [f'  --config.{field.name}={field.default}',
              textwrap.fill(field.about, 80, initial_indent=6 * ' ',
                            subsequent_indent=6 * ' ')]
  return '\n'.join(lines)


def _explained(argv: list[str], error: Exception) -> str:
  """Explains an error in --config or --config.<field>; '' for others."""
  if isinstance(error.__context__, BadInput):
    return str(error.__context__)
  if isinstance(error, flags.UnrecognizedFlagError):
    field = suggest.near(error.flagname, FIELDS)
    return (f'there is no flag --{error.flagname}; did you mean '
            f'--config.{field}?' if field else '')
  parser: Any = flags.FLAGS['config'].parser
  if not isinstance(parser.loaded, ml_collections.ConfigDict):
    return ''
  known = checks.flatten(parser.loaded)
  for name, value in _changes(argv):
    sections = [x for x in known if x.startswith(f'{name}.')]
    if sections:
      return (f'config.{name} is a section: change a field of it, such as '
              f'--config.{max(sections, key=_is_name)}=...')
    if name not in known:
      above = name.rpartition('.')[0]
      return f'unknown config field {name!r}' + (
          f': config.{above} has no fields of its own' if above in known
          else suggest.meant(name, known))
    if value is None or value.startswith('--'):
      if not isinstance(known[name], bool):
        return f'--config.{name} lacks its value: --config.{name}=...'
    elif f'--config.{name}={value}:' in str(error) and name in FIELDS:
      return (f'config.{name} is {value!r}; it must be '
              f'{FIELDS[name].check(value)}')
  return ''


def _unfilled(config: ml_collections.ConfigDict,
              prefix: str = 'config.') -> Iterator[str]:
  """The fields that are placeholders without a value."""
  for name in config:
    try:
      value = config[name]
    except ml_collections.config_dict.RequiredValueError:
      yield prefix + name
      continue
    if isinstance(value, ml_collections.ConfigDict):
      yield from _unfilled(value, f'{prefix}{name}.')


def _is_name(field: str) -> bool:
  return field.endswith(('.name', '.source'))


def _changes(argv: list[str]) -> Iterator[tuple[str, str | None]]:
  """The fields that flags set, with their values; None if there is no value."""
  argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
  for i, flag in enumerate(argv):
    if found := re.match(r'--?(?:no)?config\.([^=]*)(=?)(.*)', flag, re.DOTALL):
      name, equals, value = found.groups()
      yield name, value if equals else (argv[i + 1:] + [None])[0]
