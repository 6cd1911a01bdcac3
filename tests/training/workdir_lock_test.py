"""The config that a run's folder belongs to, and which values may change."""

import json
import types

import pytest

from configs import smoke
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import config_changes
from fedu_jax.training import finished_run
from fedu_jax.training import workdir_lock
from fedu_jax.training.config import checks


def begun(folder, config):
  """Makes the folder of a run that has begun."""
  with workdir_lock.held(workdir_lock.claim(folder, config), config):
    pass
  return folder


def test_a_run_of_an_earlier_version_lacks_fields(tmp_path, monkeypatch):
  config = smoke.get_config()
  folder = begun(tmp_path / 'run', config)
  path = folder / 'config.json'
  flat = json.loads(path.read_text())
  del flat['rule.tau']
  path.write_text(json.dumps(flat))
  with pytest.raises(BadInput, match='another config'):
    workdir_lock.claim(folder, config)
  monkeypatch.setitem(checks.ADDED, 'rule.tau', config.rule.tau)
  workdir_lock.claim(folder, config)
  assert finished_run.config_of(folder).rule.tau == config.rule.tau
  # The value that it had, which is not the default of today.
  monkeypatch.setitem(checks.ADDED, 'rule.tau', 0.125)
  assert finished_run.config_of(folder).rule.tau == 0.125
  with pytest.raises(BadInput, match=r'rule.tau \(0.125, not 0.7\)'):
    workdir_lock.claim(folder, config)


@pytest.mark.parametrize('name, words', [
    ('file', 'File exists'), ('file/run', 'Not a directory'),
    ('file/a/b', 'Not a directory')])
def test_a_file_in_the_way_is_seen_before_anything_is_done(
    tmp_path, name, words):
  (tmp_path / 'file').touch()
  with pytest.raises(BadInput, match=words):
    workdir_lock.claim(tmp_path / name, smoke.get_config())


@pytest.mark.parametrize('read_only, words', [
    (True, 'Read-only file system.*writable'),
    (False, 'Permission denied.*the right to write')])
def test_a_folder_that_may_not_be_made_is_seen_too(
    tmp_path, monkeypatch, read_only, words):
  monkeypatch.setattr(workdir_lock.os, 'access', lambda *_, **__: False)
  found = workdir_lock.os.statvfs(tmp_path)
  monkeypatch.setattr(
      workdir_lock.os, 'statvfs', lambda _: types.SimpleNamespace(
          f_flag=found.f_flag | workdir_lock.os.ST_RDONLY * read_only))
  for folder in (tmp_path, tmp_path / 'a' / 'run'):
    with pytest.raises(BadInput, match=words):
      workdir_lock.claim(folder, smoke.get_config())


def test_every_added_field_is_one():
  flat = checks.flatten(smoke.get_config())
  assert checks.ADDED.keys() <= flat.keys()


def changed(config, **changes):
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(
      {name.replace('__', '.'): value for name, value in changes.items()})
  return config


def test_what_trains_nothing_may_change(tmp_path):
  config = smoke.get_config()
  folder = begun(tmp_path / 'run', config)
  (folder / 'evaluation.json').write_text('{}')
  later = changed(config, checkpoint__keep=5, evaluation__every=0,
                  evaluation__alone=2)
  with workdir_lock.held(workdir_lock.claim(folder, later), later) as lines:
    assert len(lines) == 1
    assert 'checkpoint.keep is 5 now, not 2' in lines[0]
  assert finished_run.config_of(folder).checkpoint.keep == 5
  assert (folder / 'evaluation.json').exists()
  # Scores that were kept are of another probe.
  later = changed(later, evaluation__probe_epochs=7)
  with workdir_lock.held(workdir_lock.claim(folder, later), later):
    assert not (folder / 'evaluation.json').exists()
  for other in ({'evaluation__knn_neighbours': 3}, {'seed': 5},
                # Without a checkpoint it tells what may be lost.
                {'checkpoint__every': 1, 'seed': 5}, {'checkpoint__every': 1}):
    with pytest.raises(BadInput, match='another config'):
      workdir_lock.claim(folder, changed(later, **other))
  (folder / 'checkpoints' / '1').mkdir(parents=True)
  workdir_lock.claim(folder, changed(later, checkpoint__every=1))


def test_more_rounds_must_be_asked_for(tmp_path):
  config = smoke.get_config()  # 2 rounds
  folder = begun(tmp_path / 'run', config)
  (folder / 'checkpoints' / '2').mkdir(parents=True)
  longer = changed(config, rounds=4)
  rate = config.optimizer.learning_rate
  # The cosine of round 1 of 2, and of round 2 of 4, both from 0: halves.
  jump = f'from {rate / 2:.4g} in round 2 to {rate / 2:.4g} in round 3'
  with pytest.raises(BadInput, match=f'add --extend; .*{jump}.*cosine over 4 '):
    workdir_lock.claim(folder, longer)
  with pytest.raises(BadInput, match='cannot become one of 1: .*rounds=2'):
    workdir_lock.claim(folder, changed(config, rounds=1), extend=True)
  with pytest.raises(BadInput, match='another config'):
    workdir_lock.claim(folder, changed(longer, seed=3), extend=True)
  workdir_lock.claim(folder, longer, extend=True)
  assert finished_run.config_of(folder).rounds == 2
  with workdir_lock.held(folder, longer, extend=True) as lines:
    line, = lines
    assert line.startswith('extended from 2 to 4 rounds after round 2: ')
  # It is one of four from here on, whether that is asked for again or not.
  for extend in (False, True):
    with workdir_lock.held(folder, longer, extend=extend) as lines:
      assert lines == []
  row, = config_changes.extensions(folder)
  assert row == {
      'after_round': 2, 'from': 2, 'to': 4, 'schedule': 'cosine',
      'learning_rate_before': pytest.approx(rate / 2),
      'learning_rate_after': pytest.approx(rate / 2)}
  (folder / 'checkpoints' / '4').mkdir()
  longer = changed(config, rounds=8)
  with workdir_lock.held(folder, longer, extend=True) as lines:
    assert (f'from {rate * (1 - 2**-.5) / 2:.4g} in round 4 to {rate / 2:.4g} '
            'in round 5') in lines[0]
  assert [row['to'] for row in config_changes.extensions(folder)] == [4, 8]


def test_where_data_is_stored_is_a_place(tmp_path, monkeypatch):
  """It may change if there are digests of images, which are compared later."""
  config = changed(smoke.get_config(), data__source='npz:some/a.npz')
  (tmp_path / 'work').mkdir()
  monkeypatch.chdir(tmp_path)
  folder = begun(tmp_path / 'run', config)
  assert (finished_run.config_of(folder).data.source
          == f'npz:{tmp_path}/some/a.npz')
  monkeypatch.chdir(tmp_path / 'work')
  again = changed(config, data__source='npz:../some/../some/a.npz')
  workdir_lock.claim(folder, changed(
      config, data__source=f'npz:{tmp_path}/some/a.npz'))
  with pytest.raises(BadInput, match='put a link to the data'):
    workdir_lock.claim(folder, config)
  (folder / 'images.json').write_text('{"clients": []}')
  for other in (again, config, changed(config, data__source='digits')):
    workdir_lock.claim(folder, other)
  with pytest.raises(BadInput, match='seed'):
    workdir_lock.claim(folder, changed(again, seed=3))
