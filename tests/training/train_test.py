"""The whole program, in processes of its own: train, kill, resume, refuse."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from PIL import Image
import pytest

from configs import cifar10
from configs import cifar10_small
from configs import cifar100
from configs import methods
from configs import quickstart
from configs import smoke
from fedu_jax.runtime import terminal
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import train
from fedu_jax.training.config import binding
from fedu_jax.training.config import build
from fedu_jax.training.config import checks

ROOT = pathlib.Path(__file__).parents[2]
TINY = 'tests/helpers/tiny.py'


def command(workdir, *flags, config=TINY):
  return [sys.executable, '-m', 'fedu_jax.main', f'--config={config}',
          f'--workdir={workdir}', *flags]


def run(workdir, *flags, config=TINY, code=0, **environment):
  """Runs the program; returns what it printed on stdout and stderr."""
  done = subprocess.run(
      command(workdir, *flags, config=config), cwd=ROOT, text=True,
      capture_output=True, check=False, timeout=600,
      env={**os.environ, **environment})
  assert done.returncode == code, done.stdout + done.stderr
  return done.stdout, done.stderr


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """An undisturbed run, and its printed lines."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  return workdir, run(workdir)[0]


def compiled_rounds(cache):
  """The rounds in the user's cache of compiled programs."""
  return {path.name for path in (cache / 'fedu_jax' / 'compiled').glob(
      'jit_one_round*-cache')}


def rows(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def raw_state(workdir):
  """The newest checkpoint as plain arrays, without our types."""
  import orbax.checkpoint as ocp
  manager = ocp.CheckpointManager((workdir / 'checkpoints').absolute())
  state = manager.restore(manager.latest_step(),
                          args=ocp.args.StandardRestore())
  step = manager.latest_step()
  manager.close()
  key = jax.dtypes.prng_key
  return step, jax.tree.map(lambda x: np.asarray(
      jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, key) else x),
                            state)


def test_what_a_run_leaves(finished):
  workdir, printed = finished
  summary = json.loads((workdir / 'summary.json').read_text())
  for name in ('rounds', 'clients', 'knn_accuracy', 'linear_accuracy',
               'linear_accuracy_untrained', 'images_per_second', 'seconds',
               'config'):
    assert summary[name] is not None, name
  assert summary['rounds'] == 4 and summary['clients'] == 5
  assert summary['config']['data.max_examples'] == 400
  assert 0 < summary['linear_accuracy'] <= 1
  # One line a round, in the file and on the console, and the tables.
  found = rows(workdir)
  assert [row['round'] for row in found] == [1, 2, 3, 4]
  drifts = [0.] * 5  # who is new takes everything
  for row in found:
    assert f"round {row['round']:>4}  loss {row['loss']:.4f}" in printed
    assert row['images'] == 5 * 2 * 32  # 80 images a client, batches of 32
    clients = row['clients']
    assert len(clients['loss']) == len(row['cohort']) == 5
    # The decision follows from the divergence of the line before.
    assert row['global_predictor'] == [d < 0.4 for d in drifts]
    drifts = clients['divergence']
    layers = [v for k, v in clients.items() if k.startswith('divergence/')]
    assert len(layers) == 5  # a ResNet-6's convolutions, without shortcut
    np.testing.assert_allclose(np.mean(layers, 0), clients['divergence'],
                               rtol=1e-5)
    assert row['bytes_up'] == row['bytes_down'] > 0
  assert [row['round'] for row in found if 'knn_accuracy' in row] == [2, 4]
  assert 'examples by client and class' in printed
  for name in ('untrained', 'federation', 'linear, 10 labels a class', 'knn'):
    assert name in printed
  events, = (workdir / 'tensorboard').glob('events*')
  content = events.read_bytes()
  assert b'images_per_second' in content and b'client4/divergence' in content


def test_a_finished_run_says_so_and_evaluates(finished):
  workdir, _ = finished
  before = (workdir / 'metrics.jsonl').read_text()
  first = json.loads((workdir / 'summary.json').read_text())
  printed, _ = run(workdir)
  assert 'all 4 rounds are done' in printed and 'federation' in printed
  assert (workdir / 'metrics.jsonl').read_text() == before
  again = json.loads((workdir / 'summary.json').read_text())
  assert again['scores'] == first['scores']


def evaluate(workdir, *flags, code=0):
  done = subprocess.run(
      [sys.executable, '-m', 'fedu_jax.evaluate', f'--workdir={workdir}',
       *flags], cwd=ROOT, text=True, capture_output=True, check=False,
      timeout=600)
  assert done.returncode == code, done.stdout + done.stderr
  if code:
    line, = done.stderr.strip().splitlines()
    assert line.startswith('error: '), done.stderr
  return done.stdout + done.stderr


def test_a_checkpoint_is_scored_by_every_protocol(finished):
  workdir, _ = finished
  asked = ('linear,linear:raw,knn,knn_features,semi:0.1,semi:0.1:balanced,'
           'finetune:0.05,transfer:digits,geometry')
  printed = evaluate(workdir, f'--protocol={asked}')
  path = workdir / 'evaluation.json'
  rounds, found = json.loads(path.read_text())['federation'].values()
  assert list(found) == asked.split(',')
  summary = json.loads((workdir / 'summary.json').read_text())
  assert found['linear']['linear'] == summary['linear_accuracy']
  assert found['knn']['knn'] == summary['knn_accuracy']
  evaluate(workdir, '--protocol=linear', '--encoder=untrained')
  drawn = json.loads(path.read_text())['untrained']
  assert drawn == {'rounds': 0, 'scores': {'linear': {
      'linear': summary['linear_accuracy_untrained']}}}
  # Its own images are 400 of the digits: more labels, another probe.
  assert 0 < found['transfer:digits']['transfer to digits'] <= 1
  assert (found['transfer:digits']['transfer to digits']
          != found['linear']['linear'])
  for name in ('linear', 'semi 10 %', 'semi 10 %, balanced', 'finetune 5 %',
               'alignment', 'uniformity'):
    assert name in printed
  assert (found['linear:raw']['linear, raw features']
          != found['linear']['linear'])  # which the config standardises
  # What is known is read; the untrained encoder is another.
  found['knn']['knn'] = 0.4242

  def write(rounds):
    path.write_text(json.dumps({'federation': {
        'rounds': rounds, 'scores': found}}))
  write(rounds - 1)  # of when it was not yet as it is now
  assert '42.42 %' not in evaluate(workdir, '--protocol=knn')
  write(rounds)
  assert '42.42 %' in evaluate(workdir, '--protocol=knn')
  assert '42.42 %' not in evaluate(workdir, '--protocol=knn',
                                   '--encoder=untrained')


@pytest.mark.parametrize('flags, complaint', [
    (['--protocol=lineal'], 'choose from linear'),
    (['--protocol=semi:2'], 'use semi:<share'),
    (['--protocol=semi:0.1:balance'], 'use semi:<share'),
    (['--protocol=linear:3'], 'use linear, or linear:raw'),
    (['--protocol=knn:3'], 'takes no choice'),
    (['--protocol=classifier'], 'for runs of learner supervised'),
    (['--protocol=transfer:npz:none.npz'], 'no file'),
    (['--encoder=alone0'], 'has no checkpoints')])
def test_bad_protocols_are_one_line_and_code_two(finished, flags, complaint):
  workdir, _ = finished
  assert complaint in evaluate(workdir, *flags, code=2)


def test_scores_that_are_none_are_asked_again_or_refused(finished, tmp_path):
  workdir, _ = finished
  path = workdir / 'evaluation.json'

  def write(score):
    path.write_text(json.dumps({'federation': {
        'rounds': 4, 'scores': {'knn': score}}}))
  write({'knn': None})  # what no JSON number could say
  assert ' %' in evaluate(workdir, '--protocol=knn')
  assert 0 < json.loads(path.read_text())['federation']['scores'][
      'knn']['knn'] < 1
  for score in (3, {'knn': 'high'}, [0.5]):
    write(score)
    assert 'evaluation.json cannot be read' in evaluate(
        workdir, '--protocol=knn', code=2)
  path.unlink()
  # A checkpoint of a network that the config does not tell of.
  other = tmp_path / 'run'
  shutil.copytree(workdir, other)
  told = json.loads((other / 'config.json').read_text())
  (other / 'config.json').write_text(json.dumps(
      told | {'model.name': 'resnet10'}))
  assert 'holds another network' in evaluate(other, '--protocol=knn', code=2)


@pytest.mark.skipif(importlib.util.find_spec('torch') is None,
                    reason='PyTorch is not installed')
def test_pytorch_is_not_imported():
  """Its import takes longer than all others, and so does TensorFlow's."""
  subprocess.run(
      [sys.executable, '-c', 'import sys, fedu_jax.training.train; '
       'assert "tensorboard" in sys.modules; '
       'assert not {"torch", "tensorflow"} & set(sys.modules)'],
      cwd=ROOT, check=True, timeout=600)


def test_a_folder_without_a_run_is_not_scored(tmp_path):
  assert 'holds no run' in evaluate(tmp_path, code=2)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('cohort', [0, 2])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, cohort):
  """SIGKILL after the line of the second round; a second start ends with the
  same bits. No later start compiles the round again.
  """
  flags = (f'--config.cohort={cohort}', '--config.checkpoint.every=2',
           '--config.rounds=12')
  if cohort:
    flags += ('--config.participation.dropout=0.4',
              '--config.participation.stragglers=0.5')
  whole, cache = tmp_path / 'whole', tmp_path / 'cache'
  run(whole, *flags, XDG_CACHE_HOME=str(cache))
  kept = compiled_rounds(cache)
  assert len(kept) == 1
  killed = tmp_path / 'killed'
  with subprocess.Popen(command(killed, *flags), cwd=ROOT,
                        env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL) as process:
    path = killed / 'metrics.jsonl'
    deadline = time.time() + 300
    while not (path.exists() and path.read_text().count('\n') >= 3):
      assert process.poll() is None and time.time() < deadline
      time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
  assert not (killed / 'summary.json').exists()
  printed, _ = run(killed, *flags, XDG_CACHE_HOME=str(cache))
  assert 'going on after round' in printed
  assert compiled_rounds(cache) == kept
  (step, a), (step_b, b) = raw_state(whole), raw_state(killed)
  assert step == step_b == 12
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)
  timeless = lambda row: {k: v for k, v in row.items()
                          if k not in ('seconds', 'images_per_second')}
  assert ([timeless(r) for r in rows(whole)]
          == [timeless(r) for r in rows(killed)])


def test_a_sampled_cohort(tmp_path):
  run(tmp_path / 'run', '--config.cohort=2', '--config.rule.name=fedema_auto',
      '--config.sampling.name=by_size',
      '--config.execution=vmap', '--config.learner.first_target=alias')
  cohorts = [tuple(row['cohort']) for row in rows(tmp_path / 'run')]
  assert all(len(set(c)) == 2 and max(c) < 5 for c in cohorts)
  assert len(set(cohorts)) > 1


def test_lost_uploads_and_stragglers(tmp_path):
  printed, _ = run(tmp_path / 'run', '--config.participation.dropout=0.9',
                   '--config.participation.stragglers=1', '--config.seed=1')
  found = rows(tmp_path / 'run')
  arrived = [sum(row['arrived']) for row in found]
  size = found[0]['bytes_down'] // 5
  assert [row['bytes_up'] for row in found] == [size * n for n in arrived]
  assert sum(arrived) < 10
  assert ('the server stays as it was' in printed) == (0 in arrived)
  steps = [row['clients']['steps'] for row in found]
  assert len({x for row in steps for x in row}) > 1 and min(map(min, steps)) > 0


def test_a_folder_of_clients(tmp_path):
  """Unlabelled images of three clients are trained, and not scored."""
  draw = np.random.RandomState(0)
  for name, count in (('ann', 5), ('bob', 9), ('eve', 4)):
    (tmp_path / 'data' / name).mkdir(parents=True)
    for i in range(count):
      Image.fromarray(draw.randint(0, 256, (20, 14, 3), np.uint8)).save(
          tmp_path / 'data' / name / f'{i}.png')
  flags = [f'--config.data.source=folder:{tmp_path}/data',
           '--config.data.image_size=8', '--config.data.max_examples=0',
           '--config.batch_size=4', '--config.rounds=1']
  _, error = run(tmp_path / 'run', *flags, code=2)
  assert 'partition.name=natural' in error
  flags += ['--config.partition.name=natural', '--config.clients=3']
  printed, _ = run(tmp_path / 'run', *flags)
  assert 'ann' in printed and 'effective rank' in printed
  row, = rows(tmp_path / 'run')
  assert row['clients']['steps'] == [1, 2, 1]  # 5, 9, 4 images in fours
  summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
  assert summary['linear_accuracy'] is None
  found = summary['label_free']
  assert len(found['spread']) == 3 and found['effective_rank'] > 0
  assert f"{found['verdict']}: the features of client" in printed


@pytest.mark.parametrize('flags, complaint', [
    (['--config.ronds=2'], 'did you mean.*rounds'),
    (['--config.rule.nam=dapu'], 'did you mean.*name'),
    (['--config.rounds=two'], 'rounds'),
    (['--config.rounds=0'], 'config.rounds is 0; it must be a whole number'),
    (['--config.rounds=1.5'], 'rounds'),
    (['--config.optimizer.learning_rate=-1'], 'learning_rate'),
    (['--config.optimizer.learning_rate=nan'], 'learning_rate'),
    (['--config.view.scale=(0.5,0.2)'], 'view.scale'),
    (['--config.rule.name=dappu'], "did you mean 'dapu'"),
    (['--config.rule.name=nowhere:rule'], 'cannot be imported'),
    (['--config.execution=pmap'], 'one of auto, vmap, map'),
    (['--config.cohort=9'], 'there are 5 clients'),
    (['--config.sampling.name=unifrom'], "did you mean 'uniform'"),
    (['--config.participation.dropout=2'], 'a number from 0 to 1'),
    (['--config.devices=0'], 'auto, or a whole number from 1'),
    (['--config.devices=500'], 'at most that, or auto'),
    (['--config.partition.classes_per_client=11'], 'has 10 classes'),
    (['--config.batch_size=128'], 'client 0 has 80 images, fewer than a batch'),
    (['--config.data.source=npz:none.npz'], 'no file'),
    (['--config.data.max_examples=5000'], 'data has 1438'),
    (['--config.partition.name=dirichlet', '--config.partition.alpha=0.01',
      '--config.clients=100'], 'raise partition.alpha'),
    (['--config.rule.updates=encoder'], 'one of online, target'),
    (['--config.evaluation.alone=6'], 'there are 5 clients'),
    (['--config.learner.name=moco', '--config.learner.queue_size=100'],
     'multiple of 64'),
    (['--config.rule.name=fedca'], 'all three or none'),
    (['stray'], 'unexpected argument'),
    (['--confg=x'], 'confg'),
])
def test_bad_input_is_one_line_and_code_two(tmp_path, flags, complaint):
  import re
  _, error = run(tmp_path / 'run', *flags, code=2)
  lines = error.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith('error: '), error
  assert re.search(complaint, lines[0], re.IGNORECASE), error
  assert not (tmp_path / 'run').exists()


def test_bad_config_files(tmp_path):
  for name, text in [('absent', None), ('broken', 'def get_config(:'),
                     ('raises', 'def get_config(): 1 / 0'),
                     ('empty', 'import ml_collections\ndef get_config():'
                      '  return ml_collections.ConfigDict()')]:
    path = tmp_path / f'{name}.py'
    if text is not None:
      path.write_text(text)
    _, error = run(tmp_path / 'run', config=path, code=2)
    assert len(error.strip().splitlines()) == 1, error
  assert not (tmp_path / 'run').exists()


def test_a_workdir_of_another_config_is_refused_and_untouched(finished):
  workdir, _ = finished
  before = {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}
  _, error = run(workdir, '--config.seed=1', '--config.rule.threshold=0.5',
                 code=2)
  assert 'rule.threshold (0.4, not 0.5), seed (0, not 1)' in error
  assert before == {p: p.read_bytes() for p in workdir.rglob('*')
                    if p.is_file()}


def test_a_workdir_with_something_else_in_it_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('ten years of work')
  _, error = run(tmp_path, code=2)
  assert 'not a run of ours' in error
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


# --- configs ---------------------------------------------------------------


def test_cifar10_is_the_papers_and_else_the_released_codes_setting():
  """Clients, classes, rounds and network are the papers'; the rest is the
  code's.
  """
  flat = checks.flatten(cifar10.get_config())
  want = {
      'rounds': 100, 'local_epochs': 5, 'batch_size': 128, 'clients': 5,
      'cohort': 0, 'partition.name': 'by_class',
      'partition.classes_per_client': 2, 'model.name': 'resnet18',
      'model.width': 64, 'model.hidden': 4096, 'model.features': 2048,
      'view.scale': (0.08, 1.0), 'view.ratio': (3 / 4, 4 / 3),
      'view.flip': 0.5, 'view.jitter': 0.8, 'view.brightness': 0.8,
      'view.contrast': 0.8, 'view.saturation': 0.8, 'view.hue': 0.2,
      'view.greyscale': 0.2, 'learner.decay': 0.99,
      'optimizer.learning_rate': 0.032, 'optimizer.momentum': 0.9,
      'optimizer.weight_decay': 5e-4, 'rule.name': 'dapu',
      'rule.threshold': 0.4, 'evaluation.knn_neighbours': 200,
      'evaluation.knn_temperature': 0.1, 'evaluation.probe_epochs': 200,
      'evaluation.probe_batch_size': 2048,
      'evaluation.probe_learning_rate': 3e-3,
      'evaluation.probe_standardise': False}
  assert {name: flat[name] for name in want} == want
  hundred = checks.flatten(cifar100.get_config())
  changed = {name for name in flat if flat[name] != hundred[name]}
  assert changed == {'data.source', 'partition.classes_per_client'}
  assert hundred['partition.classes_per_client'] == 20


@pytest.mark.parametrize('config', [
    cifar10, cifar100, cifar10_small, quickstart])
def test_configs_are_sound(config):
  checks.check(config.get_config())


@pytest.mark.parametrize('name', list(methods.METHODS))
def test_methods_are_sound(name):
  """Each can be bound, and its name says what it is."""
  config = methods.get_config(name)
  checks.check(config)
  for section in ('model', 'learner', 'aggregation', 'rule'):
    binding.bind(config, section)
  flat = checks.flatten(config)
  changed = {key for key, value in checks.flatten(
      cifar10.get_config()).items() if value != flat[key]}
  assert bool(changed) == (name != 'fedu')


@pytest.mark.parametrize('name', [
    'centralised', 'fedema', 'moco_v2', 'no_ema_no_stop_gradient',
    'no_predictor', 'one_layer_predictor'])
def test_methods_that_no_other_test_trains(name, tmp_path):
  """Chosen by name. The steps of the other ablations are tested elsewhere."""
  config = smoke.get_config()
  config.rounds = 1
  methods.METHODS[name](config)
  done = train.train(config, str(tmp_path),
                     console=terminal.console(quiet=True))
  row, = rows(tmp_path)
  assert np.isfinite(row['loss']) and row['left_out'] == []
  assert len(row['cohort']) == config.clients == (
      1 if name == 'centralised' else 5)
  before, after = (x.encoder.params['projector'] for x in (
      done.untrained, done.federation))
  assert all((a != b).any() for a, b in zip(
      jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


@pytest.mark.parametrize('round_, rate', [
    (0, .0320), (25, .0273), (50, .0160), (75, .00469), (90, .00078),
    (99, 7.9e-6)])
def test_the_rate_is_the_cosine_of_the_reference(round_, rate):
  """The rates of facts B1's table, read off a step of the bound optimiser."""
  from fedu_jax.models import networks
  config = cifar10.get_config()
  learner = build.learner(config, networks.resnet10(width=1))
  make_tx = learner.step.keywords['make_tx']
  tx = make_tx(np.float32(round_))
  exact = 0.5 * 0.032 * (np.cos(np.pi * round_ / 100) + 1)
  np.testing.assert_allclose(exact, rate, rtol=1e-2)  # as the table rounds it
  w, buffer = np.full(1, 70.), 0.
  state = tx.init({'w': w})
  for gradient in (1., -0.5, 2.):  # PyTorch's SGD: decay, then momentum
    update, state = tx.update({'w': np.full(1, gradient)}, state, {'w': w})
    buffer = 0.9 * buffer + gradient + 5e-4 * w
    np.testing.assert_allclose(update['w'], -exact * buffer, rtol=1e-3)
    w = w + 30.


def test_a_researchers_own_rule_by_name(tmp_path, monkeypatch):
  """package.module:function, with its own field in the config's section."""
  (tmp_path / 'mine.py').write_text(
      'def lazy(client, server, *, patience):\n  return client\n')
  monkeypatch.syspath_prepend(tmp_path)
  config = cifar10.get_config()
  config.rule.name = 'mine:lazy'
  config.rule.patience = 3
  checks.check(config)
  assert binding.bind(config, 'rule').keywords == {'patience': 3}
  (tmp_path / 'broken.py').write_text('def rule(:')
  for name, complaint in [
      ('broken:rule', 'SyntaxError'), ('math:pi', 'imported'),
      ('mine:absent', 'AttributeError')]:
    config.rule.name = name
    with pytest.raises(BadInput, match=complaint):
      checks.check(config)
  config.rule.name = 'mine:lazy'
  del config.rule.patience
  with pytest.raises(BadInput, match='needs a field config.rule.patience'):
    checks.check(config)
  config.rule.patience = 3
  config.rule.patient = 3
  with pytest.raises(BadInput, match="'rule.patient'"):
    checks.check(config)


def test_checkpoints_keep_the_newest(tmp_path):
  state = {'a': np.arange(3.), 'key': jax.random.key(3)}
  checkpoints = Checkpoints(tmp_path / 'c', keep=2)
  assert checkpoints.restore(state) is None
  for step in (1, 2, 3):
    checkpoints.save(step, state | {'a': np.full(3, float(step))})
  got = checkpoints.restore(state)
  np.testing.assert_array_equal(got['a'], [3., 3., 3.])
  assert (jax.random.key_data(got['key']) == jax.random.key_data(
      state['key'])).all()
  checkpoints.close()
  steps = sorted(p.name for p in (tmp_path / 'c').iterdir() if p.is_dir())
  assert steps == ['2', '3']
