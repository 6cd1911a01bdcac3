"""Imports point down: the laws of direction, read off the source."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'fedu_jax'

# A module may import only from floors below its own.
FLOORS = [
    {'state', 'errors', 'lazy', 'files', 'noise', 'surroundings',
     'draws', 'suggest', 'colours'},
    {'eight_bit', 'guards', 'memory', 'watch', 'stops', 'journal', 'reading',
     'tally', 'paths', 'screen'},
    {'hosts', 'listing', 'image_files'},
    {'trees', 'losses', 'winograd', 'rows', 'augment', 'partition', 'report',
     'client_table',
     'checkpoint', 'cache', 'cifar', 'dataset', 'participation',
     'devices', 'store', 'estimate'},
    {'conv_cpu', 'batchnorm', 'health', 'score_file', 'traffic'},
    {'conv'},
    {'layers'},
    {'networks', 'local', 'aggregation', 'tfds_reader', 'folders'},
    {'learners.descent', 'rules', 'evaluation', 'rounds', 'sources'},
    {'contracts', 'semi_supervised', 'command', 'configs', 'data_record'},
    {'learners.byol', 'learners.fedca', 'learners.fedsc',
     'learners.moco', 'learners.simclr', 'learners.simsiam',
     'learners.supervised'},
    {'learners', 'scores'},
    {'fields', 'combinations'},
    {'settings'},
    {'program', 'config_flag'},
    {'room', 'changes'},
    {'runs', 'place', 'claims'},
    {'protocols', 'resident', 'travelling', 'pace'},
    {'federation', 'forecast'},
    {'preflight'},
    {'train'},
    {'main', 'evaluate', 'plan', '__init__', 'experiments',
     'experiments.published', 'experiments.spread'},
    {'experiments.plan'},
    {'experiments.bar'},
    {'experiments.queue'},
    {'experiments.figures'},
    {'experiments.page', 'experiments.linear_evaluation',
     'experiments.protocol', 'experiments.predictor', 'experiments.threshold',
     'experiments.divergence', 'experiments.tsne',
     'experiments.heterogeneity'},
    {'experiments.semi_supervised', 'experiments.transfer'},
    {'experiments.__main__'},
]


def modules():
  for path in sorted(ROOT.rglob('*.py')):
    name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    yield (name if name == '__init__' else name.removesuffix('.__init__')), path


def imports(path):
  """The modules of ours that a file imports, wherever the import stands."""
  known = {name for name, _ in modules()}
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith(
        'fedu_jax'):
      inside = node.module.removeprefix('fedu_jax').lstrip('.')
      for alias in node.names:
        full = f'{inside}.{alias.name}'.lstrip('.')
        yield full if full in known else inside
    if isinstance(node, ast.Import):
      for alias in node.names:
        assert not alias.name.startswith('fedu_jax.'), path


def test_every_module_has_a_floor():
  assert {name for name, _ in modules()} == set().union(*FLOORS)


@pytest.mark.parametrize('name, path', list(modules()))
def test_imports_point_down(name, path):
  floor = next(i for i, names in enumerate(FLOORS) if name in names)
  below = set().union(*FLOORS[:floor])
  assert set(imports(path)) <= below


def test_only_the_top_knows_the_config():
  """Who imports ml_collections."""
  users = {name for name, path in modules()
           if 'ml_collections' in path.read_text()}
  assert users == {'settings', 'program', 'scores', 'room', 'runs', 'place',
                   'claims', 'resident', 'travelling', 'federation', 'pace',
                   'forecast', 'preflight', 'train', 'config_flag',
                   'experiments.plan', 'experiments.queue'}


@pytest.mark.parametrize('name, path', list(modules()))
def test_modules_fit_on_a_few_screens(name, path):
  assert len(path.read_text().splitlines()) <= 300, name
