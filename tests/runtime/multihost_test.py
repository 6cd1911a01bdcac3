"""Several processes over loopback: one result, one checkpoint, one end.

Each case starts its own processes. Two cases kill one on purpose: a follower,
and the coordinator.
"""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from fedu_jax.data import partition
from fedu_jax.runtime import checkpoint
from fedu_jax.runtime.errors import Interrupted, LOST

ROOT = pathlib.Path(__file__).parents[2]
SCORED = '--config.evaluation.every=1'
# At the config's own rate, 0.06, training is chaotic: an eps (1e-7) in the
# first network moves divergences by up to 0.08 in the fourth round; at this
# rate, by 5e-6 (six and three draws).
CALM = '--config.optimizer.learning_rate=0.005'
TIMEOUT = 15  # seconds; other tests run beside these


def start(count, workdir, *flags, process=None, what='-', die=(None, 0),
          config='tests/helpers/tiny.py', devices=1, port=None, alone=False,
          **environment):
  """Starts `count` processes, or one alone; `die` is (which, round)."""
  if port is None:
    with socket.socket() as found:
      found.bind(('127.0.0.1', 0))
      port = found.getsockname()[1]
  env = os.environ | {
      'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1',
      'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} '
                   f'--xla_force_host_platform_device_count={devices}',
      **environment}
  joined = [] if alone else [
      f'--config.distributed.coordinator=127.0.0.1:{port}',
      f'--config.distributed.processes={count}',
      f'--config.distributed.timeout={TIMEOUT}']
  return [subprocess.Popen(
      [sys.executable, '-m', 'tests.helpers.loopback', what,
       str(die[1] if i == die[0] else 0), f'--config={config}',
       f'--workdir={workdir}', CALM, *joined,
       *([] if alone else [f'--config.distributed.process={i}']), *flags],
      cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
      stderr=subprocess.PIPE)
          for i in (range(count) if process is None else [process])]


def ended(processes, seconds=480):
  """Waits for all; returns [(exit code, stdout, stderr)] and the end times."""
  times = {}
  until = time.time() + seconds
  try:
    while len(times) < len(processes) and time.time() < until:
      for i, process in enumerate(processes):
        if process.poll() is not None:
          times.setdefault(i, time.time())
      time.sleep(0.05)
  finally:
    for process in processes:
      process.kill()
  found = [(p.returncode, *p.communicate()) for p in processes]
  assert len(times) == len(processes), found
  return found, times


def assert_left(processes, killed):
  """One process was killed in a round; the others exit soon, with a line."""
  found, times = ended(processes)
  assert found.pop(killed)[0] == -signal.SIGKILL
  for code, _, err in found:
    assert code == LOST, err
    last = err.splitlines()[-1]
    assert last.startswith(f'error: process {killed}')
    assert 'lost: start all hosts again in the same workdir' in last
    if killed:  # JAX's own lines come before only if the coordinator is gone
      assert err.count('\n') == 1, err
  # And a moment, to agree on who it was; on a busy machine, a longer one.
  assert max(times.values()) - times[killed] < TIMEOUT + 8


def rows_of(folder):
  return [json.loads(line) for line in
          (folder / 'metrics.jsonl').read_text().splitlines()]


def assert_same(folder, other):
  """Sums in another order: 1e-7 a round, as in device_mesh_test."""
  mine, theirs = rows_of(folder), rows_of(other)
  assert [x['round'] for x in mine] == [x['round'] for x in theirs]
  for a, b in zip(mine, theirs):
    assert a['global_predictor'] == b['global_predictor']
    assert a['cohort'] == b['cohort']
    np.testing.assert_allclose(a['loss'], b['loss'], rtol=1e-5)
    np.testing.assert_allclose(a['clients']['divergence'],
                               b['clients']['divergence'], rtol=1e-4)
  ends = []
  for place in folder, other:
    saved = checkpoint.Checkpoints(place / 'checkpoints', keep=2)
    ends.append(saved.restore_plain())
    saved.close()
  for a, b in zip(*(jax.tree.leaves(x['server']) for x in ends), strict=True):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4,
                               atol=1e-5)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The tiny run by one process without other hosts."""
  folder = tmp_path_factory.mktemp('whole')
  (done, *_), _ = ended(start(1, folder / 'run', SCORED, alone=True))
  assert done[0] == 0, done
  return folder / 'run'


def test_killed_in_a_round_the_others_end_and_a_restart_goes_on(
    tmp_path, whole):
  """Resumed by two processes, three, or one, it ends like a run of one."""
  folder = tmp_path / 'run'
  assert_left(start(2, folder, SCORED, die=(1, 2)), 1)
  assert [x['round'] for x in rows_of(folder)] == [1]
  assert_left(start(3, folder, SCORED, die=(0, 3)), 0)  # who coordinates
  assert [x['round'] for x in rows_of(folder)] == [1, 2, 3]
  ((code, out, err),), _ = ended(start(1, folder, SCORED, alone=True))
  assert code == 0 and 'going on after round 3 of 4' in out, err
  assert_same(folder, whole)
  # The first process scored, while the others waited.
  for a, b in zip(rows_of(folder), rows_of(whole)):
    assert abs(a['knn_accuracy'] - b['knn_accuracy']) < 0.02


def test_each_holds_its_own_clients_and_the_first_alone_reports(tmp_path):
  """Two processes of two devices; images from a file, five clients."""
  images = np.random.RandomState(0).randint(
      0, 256, (400, 8, 8)).astype(np.uint8)
  labels = np.arange(400) % 10
  np.savez(tmp_path / 'data.npz', train_images=images, train_labels=labels)
  flags = (f'--config.data.source=npz:{tmp_path}/data.npz',
           '--config.rounds=2')
  found, _ = ended(start(2, tmp_path / 'run', *flags, what='read', devices=2)
                   + start(1, tmp_path / 'one', *flags, alone=True))
  assert [code for code, *_ in found] == [0] * 3, found
  parts = partition.by_class(labels, 5, np.random.RandomState(0),
                             classes_per_client=2)
  for (_, out, _), clients in zip(found, ([0, 1, 2, 3], [4])):
    read = json.loads(out.splitlines()[-1])
    own = set(np.concatenate([parts[k] for k in clients]).tolist())
    assert set(read['rows']) == own
    assert [k for k in read['clients'] if k < 5] == clients  # others: padding
  assert_same(tmp_path / 'run', tmp_path / 'one')
  assert 'compiled for 4 devices of 2 hosts' in found[0][1]
  assert 'round' not in found[1][1] and found[1][2] == ''  # says nothing
  assert sorted(x.name for x in (tmp_path / 'run').iterdir()) == sorted(
      x.name for x in (tmp_path / 'one').iterdir())


def test_hosts_that_slurm_started(tmp_path, whole):
  """The coordinator is `auto`; JAX finds its address and the numbers.

  One task a node: each takes all devices there, not the one of its number.
  """
  folder, job = tmp_path / 'run', random.randrange(4096)  # gives the port
  processes = []
  for i in range(2):
    processes += start(
        1, folder, SCORED, '--config.distributed.coordinator=auto',
        f'--config.distributed.timeout={TIMEOUT}', alone=True, what='gpus',
        devices=2, SLURM_JOB_ID=str(job), SLURM_NTASKS='2', SLURM_LOCALID='0',
        SLURM_PROCID=str(i), SLURM_NODEID=str(i),
        SLURM_STEP_TASKS_PER_NODE='1(x2)', SLURM_STEP_NODELIST='127.0.0.1')
  found, _ = ended(processes)
  assert [code for code, *_ in found] == [0, 0], found
  for _, out, _ in found:
    assert json.loads(out.splitlines()[-1]) == {'gpus': ['all']}
  assert 'devices: 4 cpu; each of 2 processes has 2' in found[0][1]
  assert_same(folder, whole)


CASES = {
    'nobody answers': ([(2, 1)], [], 'nobody answered there, or not all'),
    'out of range': ([(2, 2)], [], 'process is 2, but there are 2 processes'),
    'no count': ([(0, 1)], [], 'Number of processes must be defined'),
    'counts differ': ([(2, 0), (3, 2)], [], 'cannot be joined: '),
    'too many': ([(2, 0), (2, 1)], ['--config.clients=1'],
                 '1 clients cannot be spread evenly over 2 processes'),
    'for one host': ([(2, 0), (2, 1)], ['--config.evaluation.alone=1'],
                     'evaluation.alone is 1, which is for one host'),
    'uneven': ([(2, 0), (2, 1)], ['--config.devices=1'],
               '5 clients cannot be spread evenly over 2 processes')}


@pytest.mark.parametrize('case', CASES)
def test_what_is_wrong_is_refused_in_a_line(tmp_path, case):
  """All processes exit with code 2 and without a traceback."""
  processes, flags, complaint = CASES[case]
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    port = found.getsockname()[1]
  began = time.time()
  done, _ = ended([start(count, tmp_path / 'run', *flags, process=i,
                         port=port)[0] for count, i in processes])
  assert time.time() - began < 90  # with the start of busy processes
  for code, out, err in done:
    assert code == 2, err
    assert err.count('\n') == 1 and err.startswith('error: '), err
  assert any(complaint in err for _, _, err in done), done
  assert not (tmp_path / 'run').exists()


def test_the_same_process_twice_ends_all(tmp_path):
  """While they join, or just after it for those that came first."""
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    port = found.getsockname()[1]
  done, _ = ended([start(2, tmp_path / 'run', process=i, port=port)[0]
                   for i in (0, 1, 1)])
  codes = [code for code, *_ in done]
  assert 2 in codes[1:] and set(codes) <= {2, LOST}, done
  for code, _, err in done:
    assert err.splitlines()[-1].startswith('error: '), err
    assert code == LOST or err.count('\n') == 1, err


def test_what_is_wrong_on_one_host_ends_all(tmp_path):
  """A file is missing there; the others name that host's error."""
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    port = found.getsockname()[1]
  done, _ = ended([start(2, tmp_path / 'run', *flags, process=i, port=port)[0]
                   for i, flags in enumerate([
                       (), ('--config.data.source=npz:absent.npz',)])])
  lines = [err for _, _, err in done]
  assert [code for code, *_ in done] == [2, 2], lines
  assert lines == [
      'error: process 1: data.source npz: there is no file absent.npz\n',
      'error: data.source npz: there is no file absent.npz\n']


def test_a_signal_to_one_ends_all_after_the_same_round(tmp_path):
  """Each exits with code 5 and a line. The round is saved, and the run resumes.
  """
  flags = '--config.rounds=300', '--config.checkpoint.every=1000'
  folder = tmp_path / 'run'
  processes = start(2, folder, *flags)
  metrics = folder / 'metrics.jsonl'
  while not (metrics.exists() and metrics.read_bytes().count(b'\n') > 1):
    assert processes[0].poll() is None
    time.sleep(0.01)
  processes[1].send_signal(signal.SIGTERM)
  found, _ = ended(processes)
  done = len(rows_of(folder))
  assert 1 < done < 300
  for (code, _, err), by in zip(found, ('with another process', 'by SIGTERM')):
    assert code == Interrupted.code, err
    assert err.startswith(f'error: interrupted {by} after round {done} of 300')
    assert err.count('\n') == 1, err
  saved = checkpoint.Checkpoints(folder / 'checkpoints', keep=2)
  assert saved.latest() == done
  saved.close()
