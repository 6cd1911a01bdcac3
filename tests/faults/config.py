"""Attacks by poor configuration: every field, from the file and by flags.

What is wrong for a field is told by the type of its value in the paper's
config, not by the checks that are tested. The data is a file that is not there:
a config that is taken for right is refused for that, and one that is wrong must
be before.
"""

from collections.abc import Callable
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
from typing import Any, NamedTuple

from configs import cifar10
from configs import smoke
from fedu_jax.training.config import checks
from tests.faults import attack
from tests.faults import forks
from tests.faults import values

NO_DATA = 'there is no file'
NO_FOLDER = 'there is no folder'
_OWN = 'processes of their own'


class Case(NamedTuple):
  """One start, and the text that its refusal must have."""
  argv: list[str]
  words: str = ''  # in the line
  module: str = 'fedu_jax.main'


BROKEN = {
    'wrong values in a config file': attack.Break(
        'fedu_jax/training/config/value_checks.py',
        'if isinstance(value, bool) or not right or',
        'if not right or'),
    'wrong values by flags': attack.Break(
        'fedu_jax/training/config/value_checks.py', 'and value <= high)', ')'),
    'extreme values that are right': attack.Break(
        'fedu_jax/training/config/value_checks.py',
        'if above else low <= value)',
        'if above else low < value)'),
    'unknown names': attack.Break(
        'fedu_jax/training/config/checks.py', 'elif name not in own:',
        'elif not name:'),
    'values that cannot stand together': attack.Break(
        'fedu_jax/training/config/compatibility.py',
        "if flat['cohort'] > clients:",
        "if flat['cohort'] > clients + 99:"),
    'values that cannot stand together with the data': attack.Break(
        'fedu_jax/training/prepare.py', 'if not labelled and prediction != z:',
        'if not labelled and not z:'),
    'config files that are none': attack.Break(
        'fedu_jax/training/config/config_flag.py',
        'except Exception as error:  # a config file is code',
        'except ValueError as error:  # a config file is code'),
    'flags of the other commands': attack.Break(
        'fedu_jax/evaluation/protocols.py',
        'except (ValueError, OverflowError) as error:',
        'except ValueError as error:'),
    _OWN: attack.Break(
        'fedu_jax/runtime/cli.py', "print('error:', ' '.join(",
        "print(' '.join(")}

# Sets the field that a number stands for: `--config=<file>:17`.
_FILE = '''
import ml_collections, numpy as np
from configs import smoke
CASES = {cases!r}

def get_config(number):
  config = place = smoke.get_config()
  name, value = CASES[int(number)]
  *sections, last = name.split('.')
  for section in sections:
    place = place[section]
  config.data.source = {source!r}
  with config.unlocked(), place.ignore_type():
    place[last] = eval(value)
  return config
'''


def _flat(config, prefix=''):
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from _flat(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def _wrong(table: dict[type, list[str]], quoted: bool):
  """Yields (field, wrong value) for every field and wrong value."""
  for name, value in _flat(cifar10.get_config()):
    if name not in values.FREE:
      yield from ((name, x) for x in table[type(value)])
    elif quoted:
      yield from ((name, x) for x in table[str] if x[0] not in "'")
    for x in values.ALSO_WRONG.get(name, ()):
      yield name, repr(x) if quoted and isinstance(value, str) else x
    if name in values.POSITIVE:
      yield name, '0'


def cases(folder: pathlib.Path) -> dict[str, list[Case]]:
  """Returns all cases by row; writes the files that they name to `folder`."""
  missing = f'npz:{folder}/none.npz'
  source = f'--config.data.source={missing}'
  wrong = list(_wrong(values.WRONG, True))
  file = folder / 'case.py'
  file.write_text(_FILE.format(cases=wrong + values.UNKNOWN_FIELDS,
                               source=missing))
  for name, (text, _) in values.FILES.items():
    if text is not None:
      (folder / f'{name}.py').write_text(text)
  base, new = '--config=configs/smoke.py', '--workdir={new}'
  # A new folder, or that of a run: both shall stay as they are.
  either = itertools.cycle([new, '--workdir={run}'])
  return {
      'wrong values in a config file': [
          Case([f'--config={file}:{i}', next(either)], name)
          for i, (name, _) in enumerate(wrong)],
      'wrong values by flags': [
          Case([base, source, f'--config.{name}={value}', next(either)], name)
          for name, value in _wrong(values.WRONG_FLAGS, False)],
      'extreme values that are right': [
          Case([base, source, f'--config.{name}={value}', new], NO_DATA)
          for name, several in values.LEGAL.items() for value in several] + [
          Case([base, f'--config.data.source=folder:{folder}/none',
                f'--config.{name}={value}', '--config.data.max_examples=0',
                '--config.partition.name=natural', new], NO_FOLDER)
          for name, several in values.LEGAL_OF_FOLDERS.items()
          for value in several],
      'unknown names': [
          Case([f'--config={file}:{len(wrong) + i}', next(either)])
          for i in range(len(values.UNKNOWN_FIELDS))] + [
          Case([base, source, f'--config.{x}', next(either)])
          for x in values.UNKNOWN],
      'values that cannot stand together': [
          Case([base, source, *(f'--config.{x}' for x in flags), next(either)],
               words) for flags, words in values.TOGETHER],
      'values that cannot stand together with the data': [
          Case([base, *(f'--config.{x}' for x in flags), new], words)
          for flags, words in values.TOGETHER_LATE],
      'config files that are none': [
          Case([f'--config={folder}/{name}.py', next(either)], words)
          for name, (_, words) in values.FILES.items()],
      'flags of the other commands': [
          Case(argv, module=f'fedu_jax.{module}') for module, several in (
              ('main', values.ANYWHERE), ('evaluate', values.EVALUATE),
              ('experiments', values.EXPERIMENTS)) for argv in several]}


def _state(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b''
          for p in folder.rglob('*')}


def attempt(start: Callable[..., Any], case: Case,
            folder: pathlib.Path) -> str:
  """Tries a case; returns what is wrong with its refusal, or ''.

  A start is (module, *argv) -> how it ended. `folder` holds the folders that
  cases name; none may change or be created.
  """
  before = _state(folder)
  done = start(case.module, *(
      x.replace('{', f'{folder}/').replace('}', '')
      if x.startswith('--workdir=') else x for x in case.argv))
  wrong = attack.refusal(done)
  if not wrong and case.words not in done.stderr:
    wrong = f'{case.words!r} is not in {done.stderr[:200]!r}'
  # The first would tell that data was touched; the others, that a wrong config
  # was taken for another right one.
  for sign in (f'{NO_DATA} {folder}', 'belongs to another config',
               'is a run of '):
    if not wrong and case.words != NO_DATA and sign in done.stderr:
      wrong = f'it was found too late: {done.stderr[:200]!r}'
  if not wrong and _state(folder) != before:
    wrong = 'a folder was made or changed'
  return f'{" ".join(case.argv)[:200]}: {wrong}' if wrong else ''


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Tries all cases, or some of each row and field."""
  found: dict[str, attack.Outcome] = {}
  rows = cases(order.folder)
  _make_runs(order.folder)
  with starts() as server:
    for row, mine in rows.items():
      if not order.wants(row):
        continue
      if order.short:
        mine = _few(row, mine, random.Random(order.seed))
      lost = [x for x in (attempt(server.run, case, order.folder)
                          for case in mine) if x]
      for text in lost:
        order.say(f'{row}: {text}')
      found[row] = attack.Outcome(len(mine), len(lost), (lost + [''])[0][:150])
  if not order.wants(_OWN):
    return found
  # That a fork tells what a process of its own would.
  few = [Case(['--config=configs/smoke.py', x, '--workdir={new}'], y)
         for x, y in (('--config.rule.threshold=nan', 'threshold'),
                      ('--config.rounds=0', 'rounds'),
                      ('--config.ronds=1', 'ronds'))]
  few = few[:1] if order.short else few
  lost = [x for x in (attempt(_start, case, order.folder) for case in few) if x]
  found[_OWN] = attack.Outcome(
      len(few), len(lost), (lost + [''])[0][:150])
  return found


def _few(row: str, mine: list[Case], draw: random.Random) -> list[Case]:
  """Chooses one value of each field; of slow rows, the first."""
  if row in ('wrong values in a config file', 'wrong values by flags'):
    by_field: dict[str, list[Case]] = {}
    for case in mine:
      by_field.setdefault(case.words, []).append(case)
    return [draw.choice(several) for several in by_field.values()]
  if row == 'extreme values that are right':
    return mine[::6]
  if row == 'values that cannot stand together with the data':
    return mine[:2]
  return [case for case in mine if '--encoder=untrained' not in case.argv
          or '--protocol=semi:inf' in case.argv]


def starts() -> forks.Forks:
  """Starts cases in a process that has imported what the commands need."""
  return forks.Forks(
      'fedu_jax.training.train', 'fedu_jax.training.score_run',
      'fedu_jax.runtime.cli', 'ml_collections.config_flags', 'sklearn.datasets',
      JAX_PLATFORMS='cpu')


def _start(module: str, *argv: str) -> subprocess.CompletedProcess:
  return subprocess.run(
      [sys.executable, '-m', module, *argv], cwd=attack.ROOT, text=True,
      check=False, capture_output=True, timeout=600, stdin=subprocess.DEVNULL,
      env={**os.environ, 'PYTHONPATH': str(attack.ROOT)})


def _make_runs(folder: pathlib.Path) -> None:
  """Makes the folder of a run that has begun, and two with damaged configs."""
  flat = checks.flatten(smoke.get_config())
  for name in checks.PLACES:
    del flat[name]
  for name, text in {'run': json.dumps(flat), 'list': '[1, 2]',
                     'broken': '{"rule": 1, "rule.name": 2}'}.items():
    (folder / name).mkdir()
    (folder / name / 'config.json').write_text(text)
  (folder / 'run' / 'metrics.jsonl').write_text('{"round": 1}\n')
