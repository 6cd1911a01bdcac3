"""Every experiment runs by its command, resumes, and writes its files."""

import functools
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from configs import methods
from fedu_jax import experiments
from fedu_jax.experiments import cell_runs
from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import progress
from fedu_jax.experiments import published_numbers
from fedu_jax.experiments import recorded_runs
from fedu_jax.experiments import runner
from fedu_jax.experiments import spread
from fedu_jax.experiments import write_report
from fedu_jax.experiments.tables import divergence
from fedu_jax.experiments.tables import linear_evaluation
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config import checks

ROOT = pathlib.Path(__file__).parents[2]


def command(*flags, code=0):
  done = subprocess.run(
      [sys.executable, '-m', 'fedu_jax.experiments', *flags], cwd=ROOT,
      text=True, capture_output=True, check=False, timeout=1200)
  assert done.returncode == code, done.stdout + done.stderr
  return done.stdout if not code else done.stderr


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """One workdir for all, so that experiments share runs of common arms."""
  return tmp_path_factory.mktemp('experiments')


def test_the_list_names_them():
  found = command('--list')
  names = [line.split()[0] for line in found.splitlines()]
  assert names == list(experiments.NAMES)


@pytest.mark.parametrize('name', experiments.NAMES)
def test_an_experiment_at_smoke_scale(name, workdir):
  printed = command(name, '--scale=smoke', f'--workdir={workdir}')
  folder = workdir / f'{name}-smoke'
  assert f'written: {folder}' in printed.replace('\n', '')
  found = json.loads((folder / 'results.json').read_text())['results']
  assert found and all(
      np.isfinite(list(s.values())).all() for r in found for s in r['scores'])
  tables = (folder / 'tables.md').read_text()
  assert 'Scale smoke' in tables
  for result in found:
    assert f"| {result['row']} |" in tables and result['column'] in tables
  pictures = list(folder.glob('*.png'))
  page = (folder / 'report.html').read_text()
  assert pictures and page.count('data:image/png;base64,') == len(pictures)
  assert not re.search(r'(?:src|href)="(?!data:)', page)  # self-contained
  _, kept = recorded_runs.read(folder / recorded_runs.FILE)
  assert kept.keys() == {run for result in found for run in result['runs']}
  assert all(len(files['metrics.jsonl']) == 2 for files in kept.values())


def test_what_is_finished_is_drawn_again_without_a_run(workdir, tmp_path):
  """It needs only the file next to the tables, in another folder."""
  command('divergence', '--scale=smoke', f'--workdir={workdir}')
  old, new = (folder / 'divergence-smoke' for folder in (workdir, tmp_path))
  kept = tmp_path / 'kept' / 'divergence-smoke'
  kept.mkdir(parents=True)
  shutil.copy(old / recorded_runs.FILE, kept)
  command('divergence', '--scale=smoke', f'--from={kept.parent}',
          f'--workdir={tmp_path}')
  assert (new / 'tables.md').read_text() == (old / 'tables.md').read_text()
  assert {path.name for path in new.iterdir()} == {
      path.name for path in old.iterdir()}
  assert not (tmp_path / 'runs').exists()


def test_several_experiments_in_one_command(workdir):
  """Each has its files. The common runs were done above."""
  printed = command('divergence,threshold', '--scale=smoke',
                    f'--workdir={workdir}').replace('\n', '')
  for name in ('divergence', 'threshold'):
    assert f'written: {workdir}/{name}-smoke/report.html' in printed


def test_seeds_together(workdir):
  """Of three seeds the first is done; the others run as one program."""
  flags = ('divergence', '--scale=smoke', f'--workdir={workdir}')
  command(*flags)
  command(*flags, '--seeds=3', '--seeds_together=2')
  folder = workdir / 'divergence-smoke'
  logs = {seed: [path.read_text() for path in workdir.glob(
      f'runs/*-seed{seed}.log')] for seed in range(3)}
  together = '2 seeds as one program'
  assert len(logs[1]) == len(logs[2]) == 2
  assert all(together in text for text in logs[1] + logs[2])
  assert not any(together in text for text in logs[0])
  for result in json.loads((folder / 'results.json').read_text())['results']:
    assert len(set(result['runs'])) == len(result['scores']) == 3
    assert all(np.isfinite(list(s.values())).all() for s in result['scores'])


def test_what_is_done_is_not_done_again(workdir):
  """A second start gives the same results from the same, unchanged runs."""
  flags = ('predictor', '--scale=smoke', f'--workdir={workdir}')
  command(*flags)
  state = {p: p.stat().st_mtime_ns for p in (workdir / 'runs').rglob('*')
           if p.is_file()}
  results = (workdir / 'predictor-smoke' / 'results.json').read_text()
  command(*flags)
  assert results == (workdir / 'predictor-smoke' / 'results.json').read_text()
  assert state == {p: p.stat().st_mtime_ns
                   for p in (workdir / 'runs').rglob('*') if p.is_file()}


def test_a_queue_that_is_killed_goes_on(tmp_path):
  """Finished runs stay as they were, and the others are done."""
  flags = ('divergence', '--scale=smoke', f'--workdir={tmp_path}')
  queue_ = subprocess.Popen(
      [sys.executable, '-m', 'fedu_jax.experiments', *flags], cwd=ROOT,
      stdout=subprocess.DEVNULL)
  found = lambda name: list(tmp_path.glob(f'runs/*/{name}'))
  while len(found('config.json')) < 2:  # the second run has begun
    assert queue_.poll() is None
    time.sleep(0.05)
  queue_.kill()
  assert queue_.wait() == -signal.SIGKILL
  done = {path: path.stat().st_mtime_ns for path in found('evaluation.json')}
  assert len(done) == 1
  command(*flags)
  assert all(path.stat().st_mtime_ns == when for path, when in done.items())
  results = json.loads(
      (tmp_path / 'divergence-smoke' / 'results.json').read_text())['results']
  assert {name for result in results for name in result['runs']} == {
      path.parent.name for path in found('evaluation.json')}
  for rows in found('metrics.jsonl'):
    if rows.parent.parent.name == 'runs':  # not of a client alone
      assert len(rows.read_text().splitlines()) == 2, rows


@pytest.mark.parametrize('flags, complaint', [
    ([], 'name an experiment'), (['dapu'], 'choose linear_evaluation'),
    (['tsne,dapu'], "no experiment 'dapu'"),
    (['tsne', '--scale=huge'], 'choose smoke, cpu, paper'),
    (['tsne', '--scale=smoke'], '--workdir is missing'),
    (['tsne', '--seeds=0'], 'seeds'), (['tsne', 'more'], 'unexpected'),
    (['tsne', '--scale=smoke', '--workdir={tmp}/file'], 'where no results'),
    (['tsne', '--scale=cpu', '--workdir={tmp}', '--data_dir={tmp}'],
     'cifar10'),
    (['tsne', '--scale=cpu', '--workdir={tmp}', '--from={tmp}'],
     'tsne-cpu/runs.jsonl.gz')])
def test_bad_input_is_one_line_and_code_two(tmp_path, flags, complaint):
  (tmp_path / 'file').touch()
  error = command(*(f.format(tmp=tmp_path) for f in flags), code=2)
  line, = error.strip().splitlines()
  assert line.startswith('error: ') and complaint in line


def test_two_processes_share_a_queue(tmp_path):
  """A run of another process is skipped, and waited for at the end."""
  arm = _arm('FedU')
  ask = functools.partial(cell_runs.ask, arm, [0], asked='knn', data_dir='',
                          runs=tmp_path)
  folder = arm.folder(0, tmp_path)
  with cell_runs.hold(folder, wait=False) as held:
    assert held and ask(wait=False) == []
  assert list(tmp_path.glob('*-seed0/*')) == []
  _score(folder, arm, federation=0.5)
  assert ask(wait=False) == [{'knn': 0.5}]  # and nothing was trained
  assert not (folder / 'checkpoints').exists()


def test_an_experiment_does_not_wait_for_another(tmp_path):
  """The second is complete while another process works on the first.

  The first is visited again before the third.
  """
  several = {}
  for row in ('FedU', 'FedSimSiam', 'FedSimCLR'):
    arm = _arm(row)
    several[row] = linear_evaluation.plan(plans.SCALES['smoke'])._replace(
        arms=[arm], protocols='knn')
    folder = arm.folder(0, tmp_path / 'runs')
    _score(folder, arm, federation=0.5)
    (folder / 'metrics.jsonl').write_text('{"round": 1}\n')
  found = runner.run(several, tmp_path, seeds=1, console=Console(quiet=True))
  first = _arm('FedU').folder(0, tmp_path / 'runs')
  with cell_runs.hold(first, wait=False) as held:
    assert held and next(found)[0] == 'FedSimSiam'
  (name, (result,)), (last, _) = found
  assert last == 'FedSimCLR'
  assert name == 'FedU' and result.scores == [{'knn': 0.5}]
  assert result.rounds == [[{'round': 1}]] and result.folders == [first]


def test_the_bar_counts_runs_whoever_does_them(tmp_path):
  """Cells of one run count once, and a cell without all scores is not done."""
  plan = linear_evaluation.plan(plans.SCALES['smoke'])
  cells = {arm.row: progress.Cell(arm, 'knn', arm.folder(0, tmp_path))
           for arm in plan.arms
           if arm.row in ('FedU', 'untrained', 'one client', 'FedSimSiam')}
  where = cells['FedU'].folder
  _score(where, _arm('FedU'), federation=0.5, alone0=0.5)
  bar = progress.Bar(cells, Console(quiet=True))
  assert bar.left() == 2
  known = json.loads((where / 'evaluation.json').read_text())
  known['untrained'] = {'rounds': 0, 'scores': {'knn': {'knn': 0.1}}}
  (where / 'evaluation.json').write_text(json.dumps(known))
  bar.show('title')
  task, = bar.tasks
  assert (bar.left(), task.total, task.completed) == (1, 2, 1)
  # Half an hour for three runs, with two of them left.
  assert progress.seconds_left(1800, 5, 2) == 1200
  assert progress.seconds_left(1800, 5, 5) is None
  assert progress.seconds_left(1, 0, 0) == 0


def test_missing_data_shows_before_anything_is_trained(tmp_path):
  """The data of the second set is missing; its arms come late."""
  several = {'two': linear_evaluation.plan(plans.SCALES['smoke'])._replace(
      arms=[_arm('FedU'), _arm('FedSimSiam')._replace(
          protocols='transfer:npz:/nowhere.npz')])}
  with pytest.raises(BadInput, match='nowhere'):
    list(runner.run(several, tmp_path, seeds=1, console=Console(quiet=True)))
  assert not (tmp_path / 'runs').exists()


def test_tfds_is_not_imported_under_the_bar(tmp_path):
  """It replaces `__import__` meanwhile, and the bar's thread would fail."""
  code = """if True:
    import pathlib, sys
    from rich.console import Console
    from fedu_jax.experiments import experiment, progress, runner
    from fedu_jax.experiments.tables import linear_evaluation
    class Shown(Exception):
      pass
    def show(self):
      raise Shown
    progress.Bar.start = show
    several = {'': linear_evaluation.plan(experiment.SCALES['cpu'])}
    assert 'tensorflow_datasets' not in sys.modules
    try:
      next(runner.run(several, pathlib.Path(sys.argv[1]), seeds=1,
                     console=Console(quiet=True)))
    except Shown:
      print('tensorflow_datasets' in sys.modules)
  """
  done = subprocess.run([sys.executable, '-c', code, tmp_path], cwd=ROOT,
                        text=True, capture_output=True, check=False)
  assert done.stdout == 'True\n', done.stderr


def test_a_damaged_row_is_named(tmp_path):
  arm = _arm('FedU')
  folder = arm.folder(0, tmp_path)
  _score(folder, arm, federation=0.5)
  (folder / 'metrics.jsonl').write_text('{"round": 1}\n{"rou')
  with pytest.raises(BadInput, match=f'jsonl is damaged.*{folder.name}'):
    cell_runs.result(arm, [{'knn': 0.5}], tmp_path, '')


def test_the_mean_of_clients_alone_is_of_all_of_them(tmp_path):
  paper, smoke = (_arm('mean of clients alone', scale)
                  for scale in ('paper', 'smoke'))
  assert paper.config.evaluation.alone == paper.config.clients
  assert smoke.config.evaluation.alone == 2
  _score(smoke.folder(0, tmp_path), smoke, alone0=0.5,
         alone1=0.25)
  assert cell_runs.ask(smoke, [0], asked='knn', data_dir='', runs=tmp_path,
                     wait=False) == [{'knn': 0.375}]


def _arm(row, scale='smoke'):
  return next(arm for arm in linear_evaluation.plan(plans.SCALES[scale]).arms
              if arm.row == row)


def _score(folder, arm, **knn):
  """Writes the scores of a run's encoders into its folder."""
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(
      checks.flatten(arm.config)))
  (folder / 'evaluation.json').write_text(json.dumps(
      {name: {'rounds': arm.config.rounds, 'scores': {'knn': {'knn': score}}}
       for name, score in knn.items()}))


# --- plans -----------------------------------------------------------------


@pytest.mark.parametrize('scale', list(plans.SCALES))
@pytest.mark.parametrize('name', experiments.NAMES)
def test_plans_are_sound(name, scale):
  """Cells are distinct, and equal configs are one run."""
  import importlib
  module = importlib.import_module(f'fedu_jax.experiments.tables.{name}')
  plan = module.plan(plans.SCALES[scale])
  cells = [(arm.row, arm.column) for arm in plan.arms]
  assert len(set(cells)) == len(cells)
  for arm in plan.arms:
    checks.check(arm.config)
    if arm.encoder.startswith('alone'):
      assert arm.config.evaluation.alone
  if scale == 'paper':  # every published number has its cell
    assert set(plan.published) <= set(cells)


def test_the_main_table_has_every_published_method():
  rows = {row for row, _, _ in published_numbers.LINEAR}
  assert rows <= {'one client', 'mean of clients alone',
                  *linear_evaluation.METHODS}
  assert set(linear_evaluation.METHODS.values()) <= set(methods.METHODS)


def test_tables_have_the_published_beside_the_measured():
  plan = linear_evaluation.plan(plans.SCALES['paper'])
  results = [plans.Result(
      arm, [{'linear': x, 'knn': x / 2} | (
          {'classifier': x / 4} if arm.protocols else {}) for x in (.8, .82)],
      [], []) for arm in plan.arms]
  linear, knn, classifier = (
      write_report._markdown(write_report._table(plan, results, caption, score))
      for caption, score in plan.tables.items())
  head, _, *lines = linear.splitlines()[2:]
  assert head == ('|  | CIFAR-10 non-IID | CIFAR-10 IID | CIFAR-100 non-IID '
                  '| CIFAR-100 IID |')
  fedu, = (line for line in lines if line.startswith('| FedU |'))
  assert fedu.split(' | ')[1:3] == [
      '81.00 ± 1.41 [U 78.71; U 83.25 (ResNet-50); E 80.52 ± 0.21]',
      '81.00 ± 1.41 [U 85.21; U 86.48 (ResNet-50); E 83.96 ± 0.18]']
  one, = (line for line in lines if line.startswith('| BYOL, centralised'))
  assert one.split(' | ')[1] == '–'  # it has all, and so no split
  assert '40.50 ± 0.71 |' in knn and '[' not in knn
  _, _, head, _, *lines = classifier.splitlines()
  assert len(lines) == 1 and '| 20.25 ± 0.35 [U 67.74 (Res' in lines[0]


def test_a_page_shows_text_as_it_is():
  """Characters of HTML are escaped, and no line breaks within a number."""
  page = write_report._html('A & B', '"x" < 1', [(
      'of <b>', [['', 'a<b'], ['<i>', '1.0 ± 0.1 [U 2.0; E 3.0 ± 0.1]']])], [])
  for text in ('<title>A &amp; B</title>', '<caption>of &lt;b&gt;</caption>',
               '<th></th><th>a&lt;b</th>', '<th>&lt;i&gt;</th>',
               '<td>1.0_±_0.1 [U_2.0; E_3.0_±_0.1]</td>'):
    assert text.replace('_', '\N{NO-BREAK SPACE}') in page


def test_divergences_are_tabled_beside_fedemas():
  plan = divergence.plan(plans.SCALES['cpu'])
  rounds = [{'clients': {'divergence': [1 / r, 3 / r]}} for r in range(1, 101)]
  results = [plans.Result(arm, [{}, {}], [rounds, rounds], [])
             for arm in plan.arms]
  (_, (head, iid, *_, theirs)), = plan.more(results)
  assert head == ['', *(f'round {r}' for r in (1, 21, 51, 81, 100))]
  assert iid == ['FedU, IID', '2.00 ± 0.00', '0.10 ± 0.00', '0.04 ± 0.00',
                 '0.02 ± 0.00', '0.02 ± 0.00']
  assert theirs[1] == '[E 0.87 to 0.98]'


def test_equal_configs_share_a_run():
  scale = plans.SCALES['cpu']
  key = lambda **changes: plans.key_of(plans.make(
      scale, data='CIFAR-10', **changes), seed=0)
  assert key() == key(rule__name='dapu') == key(rule__threshold=0.4)
  assert key() != key(rule__threshold=0.5)
  assert key(iid=True) != key() != key(method='fedbyol')
  assert key(method='fedbyol') == key(rule__name='global_predictor')


def test_mean_and_spread():
  values = [1.0, 2.0, 4.0]
  np.testing.assert_allclose(spread.mean_and_spread(values),
                             (np.mean(values), np.std(values, ddof=1)))
  assert spread.mean_and_spread([3.0]) == (3.0, 0.0)


def test_runs_of_other_images_are_not_put_into_one_table(tmp_path):
  """Their configs are equal, and their data was in two places."""
  arm = plans.Arm('FedU', 'digits', methods.get_config('fedu'))
  other = arm._replace(config=methods.get_config('fedbyol'))
  more = methods.get_config('fedu')
  more.data.image_size = 16
  seen = {}
  for i, (own, images, fits) in enumerate([
      (arm, None, True), (arm, 'a', True), (other, 'a', True),
      (arm._replace(config=more), 'b', True), (other, 'b', False)]):
    folder = tmp_path / str(i)
    folder.mkdir()
    if images:  # an earlier version kept none
      (folder / 'images.json').write_text(json.dumps(
          {'clients': ['c'], 'test_images': images}))
    if fits:
      cell_runs.see_same_images(seen, own, folder)
      continue
    with pytest.raises(BadInput, match='/4 and .*/1 are runs of other images'):
      cell_runs.see_same_images(seen, own, folder)
