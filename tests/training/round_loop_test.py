"""Several seeds run as one program, each as if it ran alone."""

import errno
import io
import itertools
import json
import time
import types

import jax
import numpy as np
import pytest
from rich.console import Console

from fedu_jax.core import communication
from fedu_jax.runtime.errors import Unsaved
from fedu_jax.training import finished_run
from fedu_jax.training import prepare
from fedu_jax.training import round_loop
from fedu_jax.training import train
from fedu_jax.training.config import build
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import federation
from fedu_jax.training.engine import placement
from tests.helpers import tiny

SEEDS = [3, 4]


def config_of(**partition):
  config = tiny.get_config()
  config.rounds = 2
  config.evaluation.alone = 1
  config.partition.update(partition)
  return config


def run(config, folders, seeds=tuple(SEEDS)):
  consoles = [Console(record=True, file=io.StringIO())
              for _ in seeds]
  with jax.numpy_rank_promotion('allow'):
    done = train.train_seeds(config, seeds, [str(x) for x in folders],
                             consoles=consoles)
  return done, [console.export_text() for console in consoles]


def rows(folder):
  return [json.loads(line)
          for line in (folder / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def apart(tmp_path_factory):
  """Runs each seed alone; returns its folders and results."""
  folders = [tmp_path_factory.mktemp('apart') / str(seed) for seed in SEEDS]
  return folders, [run(config_of(), [folder], [seed])[0][0]
                   for folder, seed in zip(folders, SEEDS)]


@pytest.fixture(scope='module')
def together(tmp_path_factory):
  place = tmp_path_factory.mktemp('together')
  folders = [place / str(seed) for seed in SEEDS]
  return folders, run(config_of(), folders)[0]


def apartness(a, b, start):
  """Returns the distance of two networks, relative to the second's training."""
  def norm(x, y):
    return np.sqrt(sum(np.sum(np.square(p - q)) for p, q in zip(
        jax.tree.leaves(x), jax.tree.leaves(y), strict=True)))
  return norm(a, b) / norm(b, start)


def test_seeds_together_are_as_apart(apart, together):
  """They differ by sums in another order, which some 40 steps magnify."""
  for one, other in zip(apart[1], together[1], strict=True):
    for a, b in ((other.federation, one.federation),
                 (other.alone[0], one.alone[0])):
      assert apartness(a, b, one.untrained) < 0.03
  first, second = together[1]
  assert apartness(first.federation, second.federation, second.untrained) > 0.5


def test_each_seed_has_its_rows(apart, together):
  for one, other in zip(apart[0], together[0], strict=True):
    for part in ('.', 'alone0'):
      for a, b in zip(rows(one / part), rows(other / part), strict=True):
        assert a.keys() == b.keys() and a['images'] == b['images']
        np.testing.assert_allclose(b['loss'], a['loss'], rtol=1e-2)
        if a['round'] == 1:  # later, so small a net has amplified rounding
          np.testing.assert_allclose(b['clients']['divergence'],
                                     a['clients']['divergence'], rtol=5e-2)
  assert rows(together[0][0])[0]['loss'] != rows(together[0][1])[0]['loss']


def test_a_seed_goes_on_by_itself(together):
  """It resumes from the files of the joint run: the same networks, no round."""
  folders, done = together
  (again,), (printed,) = run(config_of(), folders[1:], SEEDS[1:])
  assert 'all 2 rounds are done' in printed and 'compiled' not in printed
  jax.tree.map(np.testing.assert_array_equal, again.federation,
               done[1].federation)
  _, online = finished_run.restore(
      finished_run.config_of(folders[1]), folders[1], 'alone0',
      Console(quiet=True))
  jax.tree.map(np.testing.assert_array_equal, online, done[1].alone[0])


class Rounds(federation.Federation):
  """Two rounds in which nothing is computed."""
  done, where, compiled = 0, '', None

  def __init__(self, members):
    self.members = members

  def compile(self):
    pass

  def advance(self):
    self.done += 1
    return self.members * [{name: np.ones(2, bool) for name in (
        'arrived', 'sound', 'global_predictor')} | {
            'cohort': np.arange(2), 'steps': np.ones(2, int),
            'loss': np.ones(2), 'divergence': np.ones(2)}]

  def state(self, i):
    return federation.Run({'round': np.int32(self.done + i)}, (), ())

  def online(self, i):
    return i


def begin(folder, save, names=('federation',)):
  """Runs such rounds, whose checkpoints are saved by `save`."""
  saved = types.SimpleNamespace(damaged={}, save=save, latest=lambda: None,
                                oldest=lambda: 0)
  members = [prepare.Member(name, folder / name, [], None, 0, None,
                            Console(quiet=True)) for name in names]
  for member in members:
    member.folder.mkdir()
  return round_loop._rounds(
      members, [saved] * len(names), Rounds(len(names)),
      build.recipe(config_of()), communication.Sent(1, 1),
      placement.Place('device', device_mesh.layout('1', 2), None), 0.0)


@pytest.fixture
def anywhere(monkeypatch):
  """There is room for any federation."""
  monkeypatch.setattr(round_loop.placement, 'check', lambda *_, **__: None)


def test_failures_to_save_are_told_at_the_end_of_each_federation(
    tmp_path, anywhere):
  def save(done, run, files):
    if run.server['round'] == 3:  # of the second federation's second round
      raise OSError(errno.EROFS, 'Read-only file system')
  first, second = begin(tmp_path, save, ['first', 'second'])
  assert first.unsaved is None
  for row in rows(tmp_path / 'first'):
    assert {'device': 'cpu', 'platform': 'cpu', 'devices': 1
            }.items() <= row.items()
  assert str(second.unsaved) == ('checkpoint of round 2 could not be saved '
                                 '(Read-only file system): there is none yet')


def test_a_signal_whose_round_cannot_be_saved_says_so(
    tmp_path, anywhere, monkeypatch):
  """Whichever of the seeds it is."""
  monkeypatch.setattr(round_loop.signals, 'asked', lambda: True)

  def save(done, run, files):
    if run.server['round'] == 2:  # of the second federation's first round
      raise OSError(errno.ENOSPC, 'No space left on device')
  with pytest.raises(Unsaved, match='^interrupted, and the checkpoint of round '
                     '1 could not be saved .No space left on device.: there is '
                     'none yet; make room, and start again$'):
    begin(tmp_path, save, ['first', 'second'])


def test_a_clock_that_is_set_back_changes_no_duration(
    tmp_path, anywhere, monkeypatch):
  """It does not end a run. Images per second use the time that passed."""
  clock = itertools.count(2e9, -3600)
  monkeypatch.setattr(time, 'time', lambda: next(clock))

  ended, = begin(tmp_path, lambda *_: None)
  assert 0 < ended.speed['seconds'] < 60
  assert ended.speed['images_per_second'] > 0
  assert 0 <= ended.speed['compile_seconds'] < 60
  assert all(row['seconds'] > 0 for row in rows(tmp_path / 'federation'))


def test_what_differs_in_shape_runs_one_by_one(tmp_path):
  """With Dirichlet's clients, both seeds end, each with its own program."""
  config = config_of(name='dirichlet', alpha=1.0, min_examples=32)
  folders = [tmp_path / str(seed) for seed in SEEDS]
  sizes = []
  for _, printed in [run(config, folders)]:
    for folder, text in zip(folders, printed):
      assert len(rows(folder)) == 2 and text.count('compiled') == 2
      sizes.append(max(map(sum, json.loads(
          (folder / 'partition.json').read_text()))))
  assert sizes[0] != sizes[1]
