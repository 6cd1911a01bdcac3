"""The files of a finished experiment are enough to draw it again."""

import gzip
import importlib
import json
import pathlib

import pytest

from fedu_jax import experiments
from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import recorded_runs
from fedu_jax.experiments import redraw
from fedu_jax.experiments import write_report
from fedu_jax.runtime.errors import BadInput

PUBLISHED = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'results'
CPU = plans.SCALES['cpu']


def plan_of(name):
  return importlib.import_module(
      f'fedu_jax.experiments.tables.{name}').plan(CPU)


def unzipped(path):
  return gzip.decompress(path.read_bytes())


@pytest.mark.parametrize('name', experiments.NAMES)
def test_published_tables_are_drawn_from_their_file(name, tmp_path):
  """Tables have the same text, and the file has the same bytes."""
  plan = plan_of(name)
  for _, results in redraw.results({name: plan}, PUBLISHED / 'cpu', CPU):
    assert len(results) == len(plan.arms)
    write_report.write(plan, results, tmp_path, CPU)
  old = PUBLISHED / 'cpu' / f'{name}-cpu'
  for file in ('tables.md', 'results.json'):
    assert (tmp_path / file).read_text() == (old / file).read_text(), file
  file = recorded_runs.FILE
  assert unzipped(tmp_path / file) == unzipped(old / file)
  assert {path.name for path in old.iterdir()} == {
      path.name for path in tmp_path.iterdir()} - {'report.html'}


def a_run(folder):
  """Makes a run's folder with a round of two clients."""
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text('{"seed": 3}')
  (folder / 'skipped.json').write_text('["/home/me/private.png"]')
  (folder / 'metrics.jsonl').write_text(json.dumps({
      'round': 1, 'clients': {
          'divergence': [0.1, 0.7], 'divergence/conv1': [0.2, 0.3]}}) + '\n')
  return folder


@pytest.mark.parametrize('layers', [True, False])
def test_what_is_kept_of_a_run(tmp_path, layers):
  """Not `skipped.json`; divergences of layers if the experiment draws them."""
  path = tmp_path / recorded_runs.FILE
  recorded_runs.write(path, {'seeds': 1}, {'one': a_run(tmp_path / 'run')},
                      layers=layers)
  about, runs = recorded_runs.read(path)
  clients = {'divergence': [0.1, 0.7]}
  if layers:
    clients['divergence/conv1'] = [0.2, 0.3]
  assert about == {'seeds': 1}
  assert runs == {'one': {'config.json': {'seed': 3}, 'metrics.jsonl': [
      {'round': 1, 'clients': clients}]}}
  recorded_runs.unpack(recorded_runs.read(path), tmp_path / 'again')
  again = tmp_path / 'again.gz'
  recorded_runs.write(again, {'seeds': 1}, {'one': tmp_path / 'again' / 'one'},
                      layers=layers)
  assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize('damage', [
    lambda data: data[:-9], lambda data: data[:20] + b'?' + data[21:],
    lambda data: b'', lambda data: b'no gzip',
    lambda data: gzip.compress(b'[1]\n'),
    lambda data: gzip.compress(b'{}\n{"run": "one"}\n'),
    lambda data: gzip.compress(b'{}\n{"run": "../one", "files": {}}\n'),
    lambda data: gzip.compress(
        b'{}\n{"run": "one", "files": {"/etc/x.json": 1}}\n')])
def test_a_damaged_file_is_refused(tmp_path, damage):
  """So is a file that would write outside of its folder."""
  path = tmp_path / recorded_runs.FILE
  recorded_runs.write(path, {}, {'one': a_run(tmp_path / 'run')}, layers=True)
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(BadInput, match='runs.jsonl.gz is damaged'):
    recorded_runs.read(path)


def test_runs_of_other_settings_are_not_drawn(tmp_path):
  """An arm without runs is left out; a run without an arm is an error."""
  name = 'divergence'
  plan = plan_of(name)
  iid, other = plan.arms
  fewer = plan._replace(arms=[iid])
  with pytest.raises(BadInput, match='holds 3 runs of settings that diverg'):
    list(redraw.results({name: fewer}, PUBLISHED / 'cpu', CPU))
  longer = plans.make(CPU, data='CIFAR-10', rounds=200)
  more = plan._replace(arms=[*plan.arms, other._replace(
      row='FedU, longer', config=longer)])
  (_, results), = redraw.results({name: more}, PUBLISHED / 'cpu', CPU)
  assert [result.arm.row for result in results] == [iid.row, other.row]
  with pytest.raises(BadInput, match='there is no .*divergence-cpu/runs'):
    list(redraw.results({name: plan}, tmp_path, CPU))
