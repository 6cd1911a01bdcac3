"""Safety: operations that our code and a run must not use."""

import ast
import json
import os
import pathlib
import pickle
import subprocess
import sys

import pytest

from tests.faults import ends
from tests.helpers import sites

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'fedu_jax').rglob('*.py'))

# What runs code that it is given, or starts programs.
FORBIDDEN = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'shelve',
             'marshal', 'yaml', 'torch', 'subprocess', 'pty', 'code', 'codeop'}
CALLS = {'eval', 'exec', 'compile', '__import__', 'system', 'popen', 'extract',
         'extractall', 'unpack_archive', 'execv', 'spawn', 'mktemp', 'mkstemp',
         'chmod', 'fromfile', 'literal_eval'}
NETWORK = {'requests', 'urllib', 'http', 'socket', 'ftplib', 'asyncio'}


def called(node):
  return getattr(node.func, 'attr', getattr(node.func, 'id', ''))


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
def test_nothing_is_unpickled_unpacked_or_executed(path):
  for node in ast.walk(ast.parse(path.read_text())):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
      names = [node.module or '']
    for name in names:
      top = name.split('.')[0]
      # `chip_process` runs a module of ours in an interpreter of its own.
      assert top not in FORBIDDEN or (
          top == 'subprocess' and path.stem == 'chip_process'), (
              path, node.lineno)
      # TFDS downloads, and `requests` asks only whether there is a network;
      # `heartbeat` speaks with the other hosts of a run that has several.
      assert top not in NETWORK or path.stem in (
          'cifar_without_tensorflow', 'heartbeat'), (
          path, node.lineno)
    if isinstance(node, ast.Call):
      name = called(node)
      owner = getattr(getattr(node.func, 'value', None), 'id', '')
      # Ahead-of-time compilation of our own rounds has the name, too.
      assert name not in CALLS or (name == 'compile' and owner != 're' and
                                   isinstance(node.func, ast.Attribute)), (
          path, node.lineno)
      if name == 'load' and owner in ('np', 'numpy'):
        allowed = {k.arg: getattr(k.value, 'value', None)
                   for k in node.keywords}
        assert allowed.get('allow_pickle') is False, (path, node.lineno)


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  """Runs two clients' folders with umask 027, without network or pickles."""
  root = tmp_path_factory.mktemp('safe')
  sites.two_sites(root / 'data')
  (root / 'data' / 'bob' / '[x.png').write_bytes(b'no image')
  alone = ('import runpy, socket, sys\n'
           'def refuse(*_, **__):\n  raise AssertionError("the network")\n'
           'socket.socket.connect = socket.socket.connect_ex = refuse\n'
           'socket.getaddrinfo = socket.create_connection = refuse\n'
           'sys.addaudithook(lambda event, args: sys.exit(f"pickled: {args}")\n'
           '                 if event == "pickle.find_class" else None)\n'
           'runpy.run_module("fedu_jax.main", run_name="__main__")\n')
  done = subprocess.run(
      [sys.executable, '-c', alone, '--config=configs/smoke.py',
       f'--workdir={root}/new/run', f'--config.data.source=folder:{root}/data',
       '--config.partition.name=natural', '--config.clients=2',
       '--config.batch_size=4', '--config.rounds=1', '--config.store=disk',
       '--config.cohort=1', '--config.data.image_size=8',
       '--config.data.max_examples=0'],
      cwd=ROOT, text=True, capture_output=True, check=False, timeout=600,
      umask=0o027, env={**os.environ, 'XDG_CACHE_HOME': f'{root}/new/cache'})
  assert done.returncode == 0, done.stdout + done.stderr
  return root, done


def test_a_run_needs_no_network_and_says_what_it_skipped(ran):
  root, done = ran
  assert done.stderr == ''
  assert ('data: read 10 of 11 files at 8 pixels; skipped 1 that cannot be '
          'read: bob/[x.png (no image of a kind that is read); skipped.json '
          'names each') in done.stdout
  skipped, = json.loads((root / 'new' / 'run' / 'skipped.json').read_text())
  assert skipped.startswith('bob/[x.png')
  found = json.loads((root / 'new' / 'run' / 'summary.json').read_text())
  assert (found['files']['read'], found['files']['total']) == (10, 11)


UNPICKLED: list[tuple] = []
sys.addaudithook(lambda event, args: UNPICKLED.append(args)
                 if event == 'pickle.find_class' else None)


def test_checkpoints_are_read_without_pickles(ran):
  """Orbax's files and clients' files. A pickle would show by its names."""
  root, _ = ran
  UNPICKLED.clear()
  pickle.loads(pickle.dumps(pathlib.Path('x')))
  assert UNPICKLED
  UNPICKLED.clear()
  found = ends.networks(root / 'new' / 'run')
  assert any('clients' in name for name in found) and not UNPICKLED


def test_outputs_follow_the_umask(ran):
  root, _ = ran
  made = list((root / 'new').rglob('*')) + [
      *(root / 'data').glob('.fedu_jax*')]
  kinds = {p.name.split('.')[0] for p in made}
  assert {'run', 'checkpoints', 'clients', 'config', 'summary', 'metrics',
          'tensorboard', 'cache', 'compiled', ''} <= kinds
  for path in made:
    mode = path.stat().st_mode & 0o777
    assert mode == (0o750 if path.is_dir() else 0o640), (path, oct(mode))
