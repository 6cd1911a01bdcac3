"""Checkpoints on disks that are damaged, full or shared."""

import errno
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from configs import smoke
from fedu_jax.runtime import checkpoint
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import metrics_log
from fedu_jax.runtime import multihost
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import train
from fedu_jax.training import workdir_lock
from fedu_jax.training.engine import client_store
from tests.faults import attack
from tests.faults import disk
from tests.helpers import small
from tests.helpers import tiny
from tests.training.engine import client_store_test

ROOT = pathlib.Path(__file__).parents[2]


def state_of(step):
  return {'a': np.full(3, float(step)), 'b': {'key': jax.random.key(step)}}


def save(folder, steps, keep=3, **more):
  checkpoints = Checkpoints(folder / 'checkpoints', keep=keep)
  for step in steps:
    checkpoints.save(step, state_of(step), **more)
  checkpoints.close()


def names(folder):
  return sorted(path.name for path in (folder / 'checkpoints').iterdir())


def content(folder):
  return {path: path.read_bytes() for path in folder.rglob('*')
          if path.is_file()}


def newest(folder):
  """Returns the step of the newest sound state."""
  checkpoints = Checkpoints(folder / 'checkpoints', keep=3)
  found = checkpoints.restore(state_of(0))
  assert found['a'].tolist() == [checkpoints.latest()] * 3
  assert (jax.random.key_data(found['b']['key']).tolist()
          == jax.random.key_data(jax.random.key(checkpoints.latest())).tolist())
  checkpoints.close()
  return checkpoints


def truncate(path):
  path.write_bytes(path.read_bytes()[:-1])


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def empty(path):
  path.write_bytes(b'')


@pytest.mark.parametrize('damage', [truncate, flip, empty, os.unlink])
def test_any_damage_to_any_file_is_noticed(damage, tmp_path):
  """The checkpoint before is used, and reading changes no byte."""
  save(tmp_path, [1, 2])
  step = tmp_path / 'checkpoints' / '2'
  found = sorted(path for path in step.rglob('*') if path.is_file())
  assert len(found) > 4  # Orbax's, and the manifest
  for path in found:
    before = path.read_bytes()
    damage(path)
    left = content(tmp_path)
    damaged = newest(tmp_path)
    assert damaged.latest() == 1
    assert list(damaged.damaged) == [2] and path.name in damaged.damaged[2]
    assert content(tmp_path) == left
    path.write_bytes(before)
  assert newest(tmp_path).latest() == 2


def test_a_part_is_read_without_the_rest(tmp_path):
  saved = Checkpoints(tmp_path / 'some', keep=1)
  saved.save(1, {'server': {'online': {'a': jnp.arange(3.)},
                            'round': jnp.int32(4)},
                 'clients': [jnp.ones(2), jnp.zeros((5, 2))]})
  found = saved.restore_plain('server', 'online')
  assert list(found) == ['server'] and list(found['server']) == ['online']
  np.testing.assert_array_equal(found['server']['online']['a'], [0, 1, 2])
  assert set(saved.restore_plain()) == {'server', 'clients'}
  with pytest.raises(KeyError):
    saved.restore_plain('server', 'else')
  saved.close()


def test_if_none_is_sound_it_is_refused_and_untouched(tmp_path):
  save(tmp_path, [1, 2])
  for path in (tmp_path / 'checkpoints').glob('*/manifest.json'):
    flip(path)
  left = content(tmp_path)
  with pytest.raises(BadInput, match='no checkpoint that is sound'):
    Checkpoints(tmp_path / 'checkpoints', keep=3)
  assert content(tmp_path) == left


@pytest.mark.parametrize('harm, words', [
    (lambda folder: shutil.rmtree(folder / 'checkpoints'),
     'tells of 4 rounds, and there is no checkpoint'),
    (lambda folder: replace_by_folder(folder / 'metrics.jsonl'),
     'metrics.jsonl cannot be read'),
    (lambda folder: replace_by_file(folder / 'checkpoints'),
     'checkpoints cannot be read')])
def test_what_is_gone_or_cannot_be_read_is_refused(harm, words, ran, tmp_path):
  """A part of a finished run was moved away or replaced."""
  folder = tmp_path / 'run'
  shutil.copytree(ran, folder)
  harm(folder)
  left = content(folder)
  with pytest.raises(BadInput, match=words):
    train.train(tiny.get_config(), str(folder), console=Console(quiet=True))
  left.pop(folder / '.lock')
  assert {path: x for path, x in content(folder).items()
          if path.name != '.lock'} == left


def replace_by_folder(path):
  path.unlink()
  path.mkdir()


def replace_by_file(path):
  shutil.rmtree(path)
  path.write_text('no folder')


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  folder = tmp_path_factory.mktemp('ran') / 'run'
  train.train(tiny.get_config(), str(folder), console=Console(quiet=True))
  return folder


def test_a_lock_on_a_full_disk(tmp_path, monkeypatch):
  """The holder's process id is unknown, but the lock works."""
  def full(*_):
    raise OSError(errno.ENOSPC, 'full')
  with monkeypatch.context() as patched:
    patched.setattr(os, 'write', full)
    with durable_files.held(tmp_path / 'lock', signed=True) as free:
      assert free
  with durable_files.held(tmp_path / 'lock', signed=True) as free:
    assert free and str(os.getpid()) in (tmp_path / 'lock').read_text()


def test_damaged_ones_stay_until_another_is_saved(tmp_path):
  save(tmp_path, [1, 2, 3, 4])
  assert names(tmp_path) == ['2', '3', '4']
  for step in '34':
    flip(tmp_path / 'checkpoints' / step / 'default' / '_METADATA')
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=3)
  checkpoints.tidy()
  assert checkpoints.latest() == 2 and names(tmp_path) == ['2', '3', '4']
  checkpoints.save(3, state_of(3))  # in place of the damaged one
  assert names(tmp_path) == ['2', '3'] and checkpoints.damaged == {}
  checkpoints.close()
  assert newest(tmp_path).latest() == 3


def test_what_a_kill_leaves_is_no_checkpoint(tmp_path):
  """The next writer removes half-written and half-deleted checkpoints."""
  save(tmp_path, [1, 2, 3])
  folder = tmp_path / 'checkpoints'
  os.rename(folder / '3', folder / '3.part')
  assert newest(tmp_path).latest() == 2 and '3.part' in names(tmp_path)
  checkpoints = Checkpoints(folder, keep=1)
  checkpoints.tidy()
  checkpoints.close()
  assert names(tmp_path) == ['2']


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize('place', ['write', 'finish'])
def test_a_save_that_fails_changes_nothing(number, place, tmp_path,
                                           monkeypatch):
  save(tmp_path, [1])
  left = content(tmp_path)
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=1)

  def fail(*_, **__):
    raise OSError(number, os.strerror(number))
  with monkeypatch.context() as patched:
    if place == 'write':
      patched.setattr(checkpoints._handler, 'save', fail)
    else:
      patched.setattr(checkpoint.os, 'rename', fail)
    with pytest.raises(OSError, match=os.strerror(number)):
      checkpoints.save(2, state_of(2))
  assert content(tmp_path) == left and checkpoints.latest() == 1
  checkpoints.save(3, state_of(3))
  checkpoints.close()
  assert newest(tmp_path).latest() == 3 and names(tmp_path) == ['3']


def test_a_client_file_that_is_damaged_makes_its_checkpoint_so(tmp_path):
  _, clients = client_store_test.make_stores(tmp_path)
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=3)
  for round_ in range(3):
    row = jax.tree.map(lambda x: np.asarray(x)[None],
                       client_store_test.row_of(round_, round_))
    clients.put(np.array([round_ % 2]), row)
    checkpoints.save(round_ + 1, state_of(round_ + 1) | {
        'clients': clients.snapshot()}, clients.named())
    clients.keep_from(checkpoints.oldest())
  checkpoints.close()
  like = state_of(0) | {
      'clients': np.zeros(client_store_test.CLIENTS, np.int32)}
  for damage, name, left in ((flip, '0-2', 2), (os.unlink, '1-1', 1)):
    damage(tmp_path / 'clients' / '0' / f'{name}.msgpack')
    checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=3)
    assert checkpoints.latest() == left
    assert name in checkpoints.damaged[left + 1]
  clients.restore(checkpoints.restore(like)['clients'])
  assert clients.take(np.array([0])).divergence.tolist() == [0.]
  # Later files stay until there is a checkpoint anew.
  assert (tmp_path / 'clients' / '0' / '0-2.msgpack').exists()
  clients.keep_from(1)
  assert not (tmp_path / 'clients' / '0' / '0-2.msgpack').exists()
  flip(tmp_path / 'clients' / '0' / '0-0.msgpack')
  with pytest.raises(BadInput, match='0-0.msgpack is not as it was written'):
    clients.take(np.array([0]))


def test_clients_wait_in_memory_for_a_disk_with_room(tmp_path, monkeypatch):
  memory, disk = client_store_test.make_stores(tmp_path)

  def fail(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  with monkeypatch.context() as patched:
    patched.setattr(client_store.durable_files, 'write', fail)
    for round_ in range(3):
      rows = [client_store_test.row_of(10 * round_ + i, round_)._replace(
          num_examples=np.float32(i + 1)) for i in (0, 1)]
      rows = jax.tree.map(lambda *x: np.stack(x), *rows)
      for each in memory, disk:
        each.put(np.array([0, 1]), rows)
      with pytest.raises(OSError):
        disk.snapshot()
    small.check_equal(*(x.take(np.arange(3)) for x in (memory, disk)))
    assert len(disk._unwritten) == 2  # one state of a client at most
  assert disk.snapshot().tolist() == [2, 2, -1, -1, -1]
  assert [x.name for x in disk.named()] == ['0-2.msgpack', '1-2.msgpack']
  small.check_equal(*(x.take(np.arange(3)) for x in (memory, disk)))


# --- rows of rounds ----------------------------------------------------------


def row(round_):
  return {'round': round_, 'loss': round_ / 3, 'seconds': 1.5, 'images': 64}


def test_rows_wait_for_a_disk_with_room(tmp_path, monkeypatch):
  path = tmp_path / 'metrics.jsonl'
  lines = metrics_log.Lines(path, 0)
  lines.add(row(1))
  # A write that ends in the middle of a line, as on a full disk.
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (
      path.stat().st_size + 20, limit[1]))
  try:
    for round_ in (2, 3):
      lines.add(row(round_))
    with pytest.raises(OSError, match='too large'):
      lines.settle()
    assert path.stat().st_size > len(json.dumps(row(1))) + 1  # a part of it
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  lines.settle()
  assert [json.loads(x) for x in path.read_text().splitlines()] == [
      row(i) for i in (1, 2, 3)]


@pytest.mark.parametrize('text, kept, beyond', [
    ('{"round": 1}\n{"round": 2}\n{"round": 3}\n', [1, 2], 3),
    ('{"round": 1}\n{"round": 2}\n{"rou', [1, 2], 2),
    ('{"round": 1}\n{"round": 2}', [1], 2),  # nobody knows where it ends
    ('{"round": 1}\n\xff{"round"\n{"round": 2}\n', [1, 2], 2),
    ('{"round": 1}\n{"round": 1}\n{"round": 2}\n', [1, 2], 2),
    ('', [], 2), ('[]\n{}\n', [], 2)])
def test_rows_are_read_as_far_as_they_are_whole(text, kept, beyond, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  text = text.replace('}', ', "seconds": 1.5, "images": 64}')
  path.write_bytes(text.encode('latin1'))
  seen = []
  lines = metrics_log.Lines(path, 2, see=seen.append)
  assert [x['round'] for x in seen] == kept
  assert lines.beyond == beyond and lines.missing == 2 - len(kept)
  lines.add(row(3))
  assert [json.loads(x)['round'] for x in path.read_text().splitlines()
          ] == [*kept, 3]


@pytest.mark.parametrize('name', ['seconds', 'images', 'round'])
def test_a_row_with_a_damaged_name_is_none(name, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(''.join(json.dumps(row(i)) + '\n' for i in (1, 2)).replace(
      name, f'{name[:-1]}x', 1))
  seen = []
  assert metrics_log.Lines(path, 2, see=seen.append).missing == 1
  assert seen == [row(2)]


def test_a_board_that_breaks_says_so_once(tmp_path):
  (tmp_path / 'tensorboard').write_text('in the way')
  said = []
  board = metrics_log.Board(tmp_path / 'tensorboard', 0, said.append)
  for round_ in range(3):
    board.add(round_, {'loss': 1.})
  board.close()
  line, = said
  assert line.startswith('TensorBoard cannot be written')


# --- folders -----------------------------------------------------------------


def test_a_folder_whose_files_would_not_be_found_again(tmp_path):
  with pytest.raises(BadInput, match=r'has \[ \] in its name'):
    workdir_lock.claim(tmp_path / 'run [2]', smoke.get_config())
  assert not list(tmp_path.iterdir())


def test_a_folder_is_held_by_one(tmp_path):
  config = smoke.get_config()
  folder = tmp_path / 'run'
  workdir_lock.claim(folder, config)
  assert not folder.exists()
  with workdir_lock.held(folder, config):
    for claim in (workdir_lock.claim,
                  lambda *x: workdir_lock.held(*x).__enter__()):
      with pytest.raises(BadInput, match=f'another process is at {folder} '
                         rf'\(process {os.getpid()}\)'):
        claim(folder, config)
  with workdir_lock.held(workdir_lock.claim(folder, config), config):
    pass
  # What a start leaves that is killed before it has written its config.
  (folder / 'config.json').rename(folder / 'config.json.part')
  workdir_lock.claim(folder, config)


def test_a_lock_is_freed_by_any_death(tmp_path):
  code = ('import os, pathlib, sys\n'
          'from fedu_jax.runtime.durable_files import held\n'
          'held(pathlib.Path(sys.argv[1])).__enter__(); os.abort()')
  subprocess.run([sys.executable, '-c', code, tmp_path / '.lock'], cwd=ROOT,
                 check=False, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                 stderr=subprocess.DEVNULL)
  with durable_files.held(tmp_path / '.lock') as ours:
    assert ours


def test_what_fails_on_one_host_fails(monkeypatch):
  def fail():
    raise ValueError('RESOURCE_EXHAUSTED: ... No space left on device [...]')
  with pytest.raises(OSError, match='^No space left on device$'):
    multihost.together(fail)
  monkeypatch.setattr(multihost, 'any_of', lambda here: True)
  with pytest.raises(OSError, match='on another host'):
    multihost.together(lambda: 1)


# --- runs whose disk is taken away -------------------------------------------

# Longer, and all the damages, in `tests.faults`.
ROWS = 'two processes', 'a limit of file size', 'a full disk'


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
  return disk.run(attack.Order(
      pathlib.Path(tmp_path_factory.mktemp('disk')), short=True, seed=0,
      say=print, rows=frozenset(ROWS)))


@pytest.mark.parametrize('row', ROWS)
def test_nothing_is_lost(row, outcomes):
  outcome = outcomes[row]
  assert outcome.lost == 0, outcome
  assert outcome.tried or 'skipped' in outcome.note
