"""Imports point down: the laws of direction, read off the source."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'fedu_jax'

# A module may import only from floors below its own.
FLOORS = [
    {'core.state', 'data.image_colours', 'data.lazy_arrays',
     'runtime.durable_files', 'runtime.errors', 'runtime.machine',
     'runtime.prng', 'runtime.quiet_threads', 'runtime.suggest'},
    {'core.argument_checks', 'data.reading_progress', 'data.reading_report',
     'learners.eight_bit_colours', 'runtime.heartbeat', 'runtime.host_memory',
     'runtime.metrics_log', 'runtime.paths', 'runtime.signals',
     'runtime.terminal'},
    {'data.folder_listing', 'data.image_files', 'runtime.multihost'},
    {'core.participation', 'core.trees', 'data.cifar_without_tensorflow',
     'data.client_table', 'data.dataset', 'data.decoded_cache',
     'data.partition', 'learners.augment', 'learners.losses',
     'models.cpu_conv.few_channels', 'models.cpu_conv.winograd',
     'runtime.checkpoint', 'training.engine.client_store',
     'training.engine.cost_model', 'training.engine.device_mesh',
     'training.round_report'},
    {'core.communication', 'evaluation.score_file', 'models.batchnorm',
     'models.cpu_conv.by_shape', 'training.collapse'},
    {'models.convolution'},
    {'models.layers'},
    {'core.aggregation', 'core.local_training', 'data.image_folders',
     'data.tfds_reader', 'models.networks'},
    {'core.rounds', 'core.update_rules', 'data.sources', 'evaluation.probes',
     'learners.online_step'},
    {'configs', 'evaluation.semi_supervised', 'runtime.cli',
     'training.config.contracts', 'training.data_record'},
    {'learners.byol', 'learners.fedca', 'learners.fedsc', 'learners.moco',
     'learners.simclr', 'learners.simsiam', 'learners.supervised'},
    {'evaluation.encoder_scores', 'learners'},
    {'training.config.compatibility', 'training.config.fields'},
    {'training.config.registry'},
    {'training.config.config_flag', 'training.engine.round_program'},
    {'training.config_changes', 'training.engine.memory_needs'},
    {'training.engine.placement', 'training.prepare',
     'training.workdir_lock'},
    {'evaluation.protocols', 'training.engine.clients_on_device',
     'training.engine.clients_streamed', 'training.step_cost'},
    {'training.forecast', 'training.round_loop'},
    {'training.preflight'},
    {'training.train'},
    {'__init__', 'evaluate', 'experiments', 'experiments.published_numbers',
     'experiments.spread', 'main', 'plan.__main__'},
    {'experiments.experiment'},
    {'experiments.progress'},
    {'experiments.runner'},
    {'experiments.figures'},
    {'experiments.tables.divergence', 'experiments.tables.heterogeneity',
     'experiments.tables.linear_evaluation', 'experiments.tables.predictor',
     'experiments.tables.protocol', 'experiments.tables.threshold',
     'experiments.tables.tsne', 'experiments.write_report'},
    {'experiments.tables.semi_supervised', 'experiments.tables.transfer'},
    {'experiments.__main__'},
]


def modules():
  for path in sorted(ROOT.rglob('*.py')):
    if path.name == '__init__.py' and len(ast.parse(path.read_text()).body) < 2:
      continue  # a folder's sentence
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
  assert users == {
      'evaluation.encoder_scores',
      'experiments.experiment',
      'experiments.runner',
      'training.config.config_flag',
      'training.config.registry',
      'training.engine.clients_on_device',
      'training.engine.clients_streamed',
      'training.engine.memory_needs',
      'training.engine.placement',
      'training.engine.round_program',
      'training.forecast',
      'training.preflight',
      'training.prepare',
      'training.round_loop',
      'training.step_cost',
      'training.train',
      'training.workdir_lock'}


@pytest.mark.parametrize('name, path', list(modules()))
def test_modules_fit_on_a_few_screens(name, path):
  assert len(path.read_text().splitlines()) <= 300, name
