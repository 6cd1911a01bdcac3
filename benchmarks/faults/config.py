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

from benchmarks.faults import attack
from benchmarks.faults import forks
from configs import cifar10
from configs import smoke
from fedu_jax import settings

NO_DATA = 'there is no file'
_BIG = '1' * 31

# Python, as it stands in a config file. Of a type, all of them are wrong...
_WRONG = {
    int: ["'text'", "''", 'None', '[3]', '{}', 'True', '1.5', "float('nan')",
          "float('inf')", '-2', '-10**30', '10**30', '10**400', "b'1'",
          '(1, 2)', 'object()', '1j', 'np.ones(3)', 'np.int64(-5)'],
    # (ConfigDict itself makes True a number here, and refuses 10**400.)
    float: ["'text'", 'None', '[0.5]', "float('nan')", "float('inf')",
            "-float('inf')", '-1', '-1e-30', '1e308', '0.5j', '{}',
            'np.ones(2)', 'object()', '(0.5,)'],
    str: ['1', 'None', '[]', 'True', "b'auto'", "'no such thing'", '0.5',
          "'x' * 10_000", "('auto',)", 'np.ones(2)'],
    bool: ['0', '1', "'True'", 'None', '0.0', '[]'],
    tuple: ['3', '()', '(1,)', '(0.5, 0.6, 0.7)', '[0.1]', "('a', 'b')",
            "(float('nan'), 1.0)", '(1.0, 0.5)', '(0.0, 1.0)', '(-1.0, 1.0)',
            "(0.5, float('inf'))", 'None', '(1e308, 1e308)', '(True, True)',
            "'ab'"]}
# ... and likewise on the command line.
_WRONG_FLAGS = {
    int: ['two', '1.5', '-2', '1e3', '', 'nan', 'True', 'None', _BIG,
          '-' + _BIG, '9' * 5000, '[1]', '1 2'],
    float: ['x', 'nan', 'inf', '-inf', '-1', '1e308', '', 'None', '[0.5]',
            '1e999', '0,5'],
    str: ['no such thing', 'auto2', '-1', '\x1b[31m', "'auto'"],
    bool: ['maybe', '2', '', '0.0'],
    tuple: ['x', '(1,)', '()', '(0.5,0.6,0.7)', '(nan,1)', "('a','b')", '(1',
            '(1.0,0.5)', '(-1.0,1.0)', '(0.0,1.0)', '(1e308,1e308)',
            '__import__("os").abort()']}
# Fields of texts that any text may stand in, or that are paths.
_FREE = {'data.dir'}
# Whole numbers and others for which 0 is wrong.
_POSITIVE = {
    'rounds', 'local_epochs', 'batch_size', 'clients', 'devices_per_client',
    'distributed.timeout', 'partition.classes_per_client', 'model.width',
    'model.hidden', 'model.features', 'learner.queue_size', 'checkpoint.every',
    'checkpoint.keep', 'participation.least', 'partition.alpha',
    'learner.temperature', 'evaluation.knn_neighbours',
    'evaluation.knn_temperature', 'evaluation.probe_epochs',
    'evaluation.probe_batch_size', 'evaluation.probe_learning_rate',
    'evaluation.few_draws', 'evaluation.semi_hidden',
    'evaluation.semi_epochs'}
# Values that are right, though extreme: by field, as on the command line.
LEGAL = {
    'seed': ['0', str(2**32 - 1)], 'rounds': ['1', str(10**9)],
    'local_epochs': ['1', '10000'], 'batch_size': ['2', str(2**20)],
    'clients': ['1', str(10**6)], 'cohort': ['0', '1', '5'],
    'participation.dropout': ['0', '1'], 'participation.stragglers': ['0', '1'],
    'participation.least': ['1e-9', '1'], 'devices': ['1', '1000000', 'auto'],
    'clients_per_device': ['0', '1000000'], 'distributed.timeout': ['1'],
    'data.image_size': ['0', '1', '4096'],
    'data.max_examples': ['0', '1', str(10**9)], 'data.dir': ['', '/nowhere'],
    'partition.classes_per_client': ['1'],
    'partition.alpha': ['1e-300', '1000000'],
    'partition.min_examples': ['0'],
    'model.width': ['1', '4096'], 'model.hidden': ['1', str(2**17)],
    'model.features': ['1'], 'model.projector_layers': ['0', '1', '2'],
    'model.predictor_layers': ['0', '1', '2'],
    'view.scale': ['(1e-6,1.0)', '(1.0,1.0)'],
    'view.ratio': ['(0.001,1000.0)', '(1.0,1.0)'],
    'view.flip': ['0', '1'], 'view.jitter': ['0', '1'],
    'view.brightness': ['0', '1000'], 'view.hue': ['0', '0.5'],
    'view.greyscale': ['0', '1'], 'learner.decay': ['0', '1'],
    'learner.temperature': ['0.001', '1000000'], 'learner.queue_size': ['1'],
    'learner.ema': ['True', 'False'],
    'optimizer.learning_rate': ['0', '1000000', '1e-320'],
    'optimizer.momentum': ['0', '1'], 'optimizer.weight_decay': ['0'],
    'rule.threshold': ['0', '1e30'], 'rule.scale': ['0', '1000000'],
    'rule.tau': ['0'], 'evaluation.every': ['0', str(10**9)],
    'evaluation.alone': ['0', '5'],
    'evaluation.knn_neighbours': ['1', str(10**9)],
    'evaluation.knn_temperature': ['0.02'],
    'evaluation.labels_per_class': ['0', str(10**9)],
    'checkpoint.every': [str(10**9)], 'checkpoint.keep': ['1', str(10**9)]}

# Flags that cannot stand together, each right by itself; and words that the
# refusal must hold.
_TOGETHER = [
    (['cohort=6'], 'cohort is 6'),
    (['batch_size=33', 'devices_per_client=2'], 'batch_size'),
    (['devices=2', 'devices_per_client=4'], 'devices_per_client'),
    (['evaluation.alone=6'], 'evaluation.alone'),
    (['learner.name=moco', 'learner.queue_size=100'], 'multiple of 64'),
    (['learner.name=fedca'], 'all three or none'),
    (['aggregation.name=fedsc', 'rule.name=fedsc'], 'all three or none'),
    (['partition.name=natural'], 'needs owners'),
    (['data.source=folder:/nowhere'], 'needs labels'),
    (['data.source=folder:/nowhere', 'partition.name=dirichlet'],
     'needs labels'),
    (['data.source=folder:/nowhere', 'partition.name=natural',
      'learner.name=supervised'], 'needs labels'),
    (['distributed.processes=2'], 'no coordinator'),
    (['distributed.process=0'], 'no coordinator'),
    (['distributed.coordinator=127.0.0.1:1', 'distributed.processes=2',
      'distributed.process=2'], '0 to 1'),
    (['view.scale=(0.9,0.2)'], 'view.scale'),
    (['rule.name=math:sqrt'], 'rule.name'),
    (['rule.name=os:getcwd'], 'cannot be called as (client, server)'),
    (['loss.name=fedu_jax.losses:nt_xent'], 'temperature')]
# The same, where the data (digits) or the devices must be known for it: nothing
# is written all the same.
_TOGETHER_LATE = [
    (['model.projector_layers=0'], 'config.model.features to 4'),
    (['partition.classes_per_client=11'], 'has 10 classes'),
    (['batch_size=128'], 'fewer than a batch'),
    (['clients=1000'], 'fewer than a batch'),
    (['data.max_examples=2000'], 'data has 1438'),
    (['partition.name=dirichlet', 'partition.alpha=1e-9'], 'partition.alpha'),
    (['partition.name=dirichlet', 'partition.min_examples=1000'],
     'partition.alpha'),
    (['devices=1000'], 'JAX sees'),
    (['devices_per_client=32'], 'devices'),
    (['store=device', 'clients_per_device=1'], 'store to auto'),
    (['clients_per_device=1', 'learner.name=fedca', 'rule.name=fedca',
      'aggregation.name=fedca'], 'a whole cohort at once'),
    (['learner.name=simsiam', 'model.projector_layers=0',
      'model.predictor_layers=1'], 'config.model.features to 4'),
    (['learner.name=supervised', 'model.predictor_layers=1',
      'model.projector_layers=0'], 'config.model.features to 10'),
    (['model.hidden=131072', 'model.features=131072'], 'GB'),
    (['model.width=4096', 'model.name=resnet50'], 'GB'),
    (['learner.name=moco', 'learner.queue_size=9999936',
      'model.features=16384'], 'GB'),
    (['data.image_size=4096', 'data.max_examples=0'], 'GB')]

_UNKNOWN = ['ronds=2', 'rule.nam=dapu', 'Rounds=2', 'rule.name.x=1', 'rule=5',
            'rounds.x=1', 'a.b.c=1', '=3', '.=1', 'rounds..x=1', 'rounds']
_UNKNOWN_FIELDS = [
    ('ronds', '2'), ('rule.treshold', '0.4'), ('rule.patience', '3'),
    ('sectoin', 'ml_collections.ConfigDict()'), ('rule', '5'),
    ('rounds', 'ml_collections.ConfigDict({"x": 1})'),
    ('view', "ml_collections.ConfigDict({'scale': (0.5, 1.0)})"),
    ('evaluation', 'None'), ('5', '5')]
_FILES = {
    'absent': None, 'empty': '', 'no_function': 'x = 1',
    'syntax': 'def get_config(:', 'raises': 'def get_config(): 1 / 0',
    'none': 'def get_config(): return None',
    'number': 'def get_config(): return 5',
    'dict': "def get_config(): return {'rounds': 3}",
    'bare': 'import ml_collections\n'
            'def get_config(): return ml_collections.ConfigDict()',
    'imports': 'import no_such_module_anywhere',
    'circle': 'from configs import smoke\n'
              'def get_config():\n  c = smoke.get_config()\n'
              '  c.rule.name = c.get_ref("rule") if False else 3\n  return c',
    'placeholder': 'from configs import smoke\n'
                   'from ml_collections import config_dict\n'
                   'def get_config():\n  c = smoke.get_config()\n'
                   '  with c.ignore_type():\n    c.model.width = '
                   'config_dict.required_placeholder(int)\n  return c',
    'binary': '\x00\x01\x02'}
_ANYWHERE = [[], ['stray'], ['--confg=x'], ['--workdir'], ['--config'],
             ['--flagfile=/nowhere/flags'], ['--config=/nowhere.py'],
             ['--config=configs'], ['--config='], ['--config=configs/smoke.py'],
             ['--config=configs/methods.py:nothing', '--workdir=/tmp/x'],
             ['--config=configs/smoke.py:extra', '--workdir=/tmp/x'],
             ['--config=configs/smoke.py', '--workdir=/dev/null/x',
              '--config.rounds=0'], ['--verbosity=loud']]
_EVALUATE = [[], ['--workdir=/nowhere'], ['--workdir={run}', '--protocol='],
             ['--workdir={run}', '--protocol=liner'],
             ['--workdir={run}', '--protocol=linear:3'],
             ['--workdir={run}', '--encoder=../..'],
             ['--workdir={run}', '--encoder=alone-1'],
             ['--workdir={run}', '--encoder=alone7'],
             ['--workdir={run}', '--encoder='], ['--workdr=x'], ['stray'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=semi:-1'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=semi:inf'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=semi:nan'],
             ['--workdir={run}', '--encoder=untrained',
              '--protocol=semi:0.5:evenly'],
             ['--workdir={run}', '--encoder=untrained',
              '--protocol=transfer:npz:/nowhere'],
             ['--workdir={run}', '--encoder=untrained', '--protocol=transfer'],
             ['--workdir={broken}', '--protocol=knn'],
             ['--workdir={list}', '--protocol=knn']]
_EXPERIMENTS = [[], ['nothing'], ['predictor'], ['predictor', '--seeds=0'],
                ['predictor', '--seeds=-1'], ['predictor', '--seeds=x'],
                ['predictor', '--seeds=' + _BIG],
                ['predictor', '--scale=huge', '--workdir={run}'],
                ['predictor', 'protocol'], ['--workdir={run}'],
                ['predictor', '--seeds_together=0']]


class Case(NamedTuple):
  """One start, and what its refusal must say."""
  argv: list[str]
  words: str = ''  # in the line
  module: str = 'fedu_jax.main'


BROKEN = {
    'wrong values in a config file': attack.Break(
        'fedu_jax/fields.py', 'if isinstance(value, bool) or not right or',
        'if not right or'),
    'wrong values by flags': attack.Break(
        'fedu_jax/fields.py', 'and value <= high)', ')'),
    'extreme values that are right': attack.Break(
        'fedu_jax/fields.py', 'if above else low <= value)',
        'if above else low < value)'),
    'unknown names': attack.Break(
        'fedu_jax/settings.py', 'elif name not in own:', 'elif not name:'),
    'values that cannot stand together': attack.Break(
        'fedu_jax/combinations.py', "if flat['cohort'] > clients:",
        "if flat['cohort'] > clients + 99:"),
    'the same, known with the data': attack.Break(
        'fedu_jax/runs.py', 'if not labelled and prediction != z:',
        'if not labelled and not z:'),
    'config files that are none': attack.Break(
        'fedu_jax/command.py', 'except Exception as error:',
        'except ValueError as error:'),
    'flags of the other commands': attack.Break(
        'fedu_jax/protocols.py', 'except (ValueError, OverflowError) as error:',
        'except ValueError as error:'),
    'processes of their own': attack.Break(
        'fedu_jax/command.py', "print('error:', ' '.join(", "print(' '.join(")}

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
  """(field, wrong value) of every field, and every wrong value."""
  for name, value in _flat(cifar10.get_config()):
    if name not in _FREE:
      yield from ((name, x) for x in table[type(value)])
    elif quoted:
      yield from ((name, x) for x in table[str] if x[0] not in "'")
    if name in _POSITIVE:
      yield name, '0'


def cases(folder: pathlib.Path) -> dict[str, list[Case]]:
  """All of them, by row; files that they name are written to `folder`."""
  missing = f'npz:{folder}/none.npz'
  source = f'--config.data.source={missing}'
  wrong = list(_wrong(_WRONG, True))
  file = folder / 'case.py'
  file.write_text(_FILE.format(cases=wrong + _UNKNOWN_FIELDS, source=missing))
  for name, text in _FILES.items():
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
          for name, value in _wrong(_WRONG_FLAGS, False)],
      'extreme values that are right': [
          Case([base, source, f'--config.{name}={value}', new], NO_DATA)
          for name, values in LEGAL.items() for value in values],
      'unknown names': [
          Case([f'--config={file}:{len(wrong) + i}', next(either)])
          for i in range(len(_UNKNOWN_FIELDS))] + [
          Case([base, source, f'--config.{x}', next(either)])
          for x in _UNKNOWN],
      'values that cannot stand together': [
          Case([base, source, *(f'--config.{x}' for x in flags), next(either)],
               words) for flags, words in _TOGETHER],
      'the same, known with the data': [
          Case([base, *(f'--config.{x}' for x in flags), new], words)
          for flags, words in _TOGETHER_LATE],
      'config files that are none': [
          Case([f'--config={folder}/{name}.py', next(either)])
          for name in _FILES],
      'flags of the other commands': [
          Case(argv, module=f'fedu_jax.{module}') for module, several in (
              ('main', _ANYWHERE), ('evaluate', _EVALUATE),
              ('experiments', _EXPERIMENTS)) for argv in several]}


def _state(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b''
          for p in folder.rglob('*')}


def attempt(start: Callable[..., Any], case: Case,
            folder: pathlib.Path) -> str:
  """Tries a case; says what is wrong with how it is refused, or ''.

  Args:
    start: (module, *argv) -> how it ended.
    case: what to start.
    folder: holds the folders that cases name; none may change, or be made.
  """
  before = _state(folder)
  done = start(case.module, *(
      x.replace('{', f'{folder}/').replace('}', '')
      if x.startswith('--workdir=') else x for x in case.argv))
  wrong = attack.refusal(done)
  if not wrong and case.words not in done.stderr:
    wrong = f'{case.words!r} is not in {done.stderr[:200]!r}'
  # The first would tell that data was touched; the second, that a wrong config
  # was taken for another right one.
  for sign in (f'{NO_DATA} {folder}', 'belongs to another config'):
    if not wrong and case.words != NO_DATA and sign in done.stderr:
      wrong = f'it was found too late: {done.stderr[:200]!r}'
  if not wrong and _state(folder) != before:
    wrong = 'a folder was made or changed'
  return f'{" ".join(case.argv)[:200]}: {wrong}' if wrong else ''


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Tries all cases, or some of each row, and of each field."""
  found: dict[str, attack.Outcome] = {}
  rows = cases(order.folder)
  _make_runs(order.folder)
  with starts() as server:
    for row, mine in rows.items():
      if order.short:
        mine = _few(row, mine, random.Random(order.seed))
      lost = [x for x in (attempt(server.start, case, order.folder)
                          for case in mine) if x]
      for text in lost:
        order.say(f'{row}: {text}')
      found[row] = attack.Outcome(len(mine), len(lost), (lost + [''])[0][:150])
  # That a fork tells what a process of its own would.
  few = [Case(['--config=configs/smoke.py', x, '--workdir={new}'], y)
         for x, y in (('--config.rule.threshold=nan', 'threshold'),
                      ('--config.rounds=0', 'rounds'),
                      ('--config.ronds=1', 'ronds'))]
  few = few[:1] if order.short else few
  lost = [x for x in (attempt(_start, case, order.folder) for case in few) if x]
  found['processes of their own'] = attack.Outcome(
      len(few), len(lost), (lost + [''])[0][:150])
  return found


def _few(row: str, mine: list[Case], draw: random.Random) -> list[Case]:
  """Of the rows of all fields, some values of each; of slow rows, the first."""
  each = {'wrong values in a config file': 3, 'wrong values by flags': 1}
  if row in each:
    by_field: dict[str, list[Case]] = {}
    for case in mine:
      by_field.setdefault(case.words, []).append(case)
    return [case for several in by_field.values()
            for case in draw.sample(several, each[row])]
  if row == 'extreme values that are right':
    return mine[::6]
  if row == 'the same, known with the data':
    return mine[:2]
  return [case for case in mine if '--encoder=untrained' not in case.argv
          or '--protocol=semi:inf' in case.argv]


def starts() -> forks.Forks:
  """What starts cases: a process that has imported what the commands need."""
  return forks.Forks(
      'fedu_jax.train', 'fedu_jax.protocols', 'fedu_jax.command',
      'ml_collections.config_flags', 'sklearn.datasets', JAX_PLATFORMS='cpu')


def _start(module: str, *argv: str) -> subprocess.CompletedProcess:
  return subprocess.run(
      [sys.executable, '-m', module, *argv], cwd=attack.ROOT, text=True,
      check=False, capture_output=True, timeout=600, stdin=subprocess.DEVNULL,
      env={**os.environ, 'PYTHONPATH': str(attack.ROOT)})


def _make_runs(folder: pathlib.Path) -> None:
  """The folder of a run that has begun, and two whose config is damaged."""
  flat = settings.flatten(smoke.get_config())
  for name in settings.PLACES:
    del flat[name]
  for name, text in {'run': json.dumps(flat), 'list': '[1, 2]',
                     'broken': '{"rule": 1, "rule.name": 2}'}.items():
    (folder / name).mkdir()
    (folder / name / 'config.json').write_text(text)
  (folder / 'run' / 'metrics.jsonl').write_text('{"round": 1}\n')
