"""Weights that a run starts from: which files are taken, and what is said."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from safetensors import numpy as safetensors_numpy

from configs import smoke
from fedu_jax.core.state import Online
from fedu_jax.encoders import weights_file
from fedu_jax.encoders.about import About
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.models import networks
from fedu_jax.models import torch_names
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import finished_run
from fedu_jax.training import saved_encoder
from fedu_jax.training import start_weights
from fedu_jax.training import train
from fedu_jax.training.config import binding
from fedu_jax.training.config import checks
from tests.helpers import small

QUIET = Console(quiet=True)


def config_of(path='', **model):
  config = smoke.get_config()
  config.rounds = 1
  config.data.max_examples = 320
  config.evaluation.every = 0
  config.model.update(init_from=str(path), **model)
  checks.check(config)
  return config


def random(config, *, seed=1, side=8, channels=3):
  """A network of a config with random weights, without compiling it."""
  nets = binding.bind(config, 'model')()
  shapes = jax.eval_shape(lambda: networks.init_online(
      nets, jax.random.key(0), jnp.zeros((2, side, side, channels))))
  draw = np.random.RandomState(seed)
  # Above 0, as variances must be.
  return jax.tree.map(
      lambda x: jnp.asarray(draw.rand(*x.shape) + 0.1, x.dtype), shapes)


def arrays_of(config, **more):
  """The file of torchvision for a network: backbone and classifier."""
  arrays = torch_names.to_torch(random(config, **more).encoder)
  return {key: x for key, x in arrays.items()
          if not key.startswith('projector')} | {
              'fc.weight': np.zeros((9, 4)), 'fc.bias': np.zeros(9)}


def saved(path, arrays):
  safetensors_numpy.save_file(arrays, path)
  return path


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'start.safetensors'


def given(path, config, folder, **shape):
  start = start_weights.read(config, folder)
  online = random(config, seed=2, **shape)
  return start_weights.given(start, online, config), start, online


def test_a_file_of_torchvision_becomes_the_backbone(path, tmp_path):
  config = config_of(path)
  arrays = arrays_of(config)
  saved(path, arrays)
  ours, start, drawn = given(path, config, tmp_path / 'run')
  kernel = ours.encoder.params['backbone']['conv1']['kernel']
  np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1),
                                arrays['conv1.weight'])
  np.testing.assert_array_equal(
      ours.encoder.batch_stats['backbone']['bn1']['var'],
      arrays['bn1.running_var'])
  small.check_equal(ours.encoder.params['projector'],
                    drawn.encoder.params['projector'])
  small.check_equal(ours.predictor, drawn.predictor)
  line, = start_weights.told(start, drawn, config)
  for words in ('the projector is drawn anew', 'fc.weight', 'fc.bias',
                'model.normalise=imagenet'):
    assert words in line


def test_an_export_of_ours_has_the_projector_too(path, tmp_path):
  config = config_of(path)
  source = random(config).encoder
  model = config.model.to_dict() | {'normalise': 'none'}
  path.write_bytes(weights_file.to_bytes(Encoder(
      binding.bind(config, 'model')().encoder, source,
      About((8, 8), 3, 'uint8', 8, projector=True, model=model))))
  ours, start, drawn = given(path, config, tmp_path)
  small.check_equal(ours.encoder, source)
  line, = start_weights.told(start, drawn, config)
  assert 'backbone and the projector' in line and 'normalise' not in line
  config.model.normalise = 'imagenet'
  with pytest.raises(BadInput, match='normalise=none: set it so'):
    given(path, config, tmp_path)


def test_grey_images_see_the_sum_of_the_kernels_of_colours(path, tmp_path):
  config = config_of(path)
  arrays = arrays_of(config)
  saved(path, arrays)
  ours, start, drawn = given(path, config, tmp_path, channels=1)
  np.testing.assert_allclose(
      ours.encoder.params['backbone']['conv1']['kernel'][:, :, 0],
      arrays['conv1.weight'].sum(1).transpose(1, 2, 0), rtol=1e-6)
  assert 'are summed for grey images' in start_weights.told(
      start, drawn, config)[0]


@pytest.mark.parametrize('theirs, ours, words', [
    ({}, {'stem': 'imagenet'}, '3x3.*7x7.*model.stem=cifar'),
    ({'stem': 'imagenet'}, {}, '7x7.*3x3.*model.stem=imagenet'),
    ({'width': 3}, {}, 'model.width=3'),
    ({'name': 'vit_tiny'}, {'name': 'vit_tiny', 'patch': 8}, 'model.patch=4'),
    ({}, {'name': 'resnet10'}, '^the backbone in .* missing, such as layer'
     '.*: set config.model.name to the network of the file'),
    ({'name': 'resnet10'}, {}, 'unexpected, such as layer')])
def test_another_network_is_refused_in_one_line(
    path, tmp_path, theirs, ours, words, monkeypatch):
  monkeypatch.setattr(networks, '_DEPTH', 1)
  saved(path, arrays_of(small_config(**theirs), side=32))
  with pytest.raises(BadInput, match=words) as caught:
    given(path, small_config(path, **ours), tmp_path, side=32)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('wrong', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(path, tmp_path, wrong):
  config = config_of(path)
  arrays = arrays_of(config)
  arrays['bn1.bias'] = np.full_like(arrays['bn1.bias'], wrong)
  saved(path, arrays)
  with pytest.raises(BadInput, match='bn1.bias with NaN or infinity: choose'):
    start_weights.read(config, tmp_path)


def small_config(path='', **model):
  config = smoke.get_config()
  config.model.update(init_from=str(path), **model)
  return config


def test_places_of_another_size_are_refused(path, tmp_path, monkeypatch):
  monkeypatch.setattr(networks, '_DEPTH', 1)
  config = small_config(path, name='vit_tiny')
  saved(path, arrays_of(config, side=16))
  with pytest.raises(BadInput, match='4x4 patches.*2x2 patches.*image_size'):
    given(path, config, tmp_path, side=8)


def test_a_pickle_is_refused_with_the_way_to_convert_it():
  with pytest.raises(BadInput, match='weights_only=True.*save_file'):
    config_of('resnet18.pth')


def test_a_run_starts_from_a_file_and_needs_it_no_more(path, tmp_path):
  """The first network is scored, and another file is noticed."""
  folder = tmp_path / 'run'
  config = config_of(path)
  arrays = arrays_of(config)
  saved(path, arrays)

  def see_start(online: Online):
    for key, x in torch_names.to_torch(online.encoder).items():
      if key in arrays and 'num_batches' not in key:
        np.testing.assert_array_equal(x, arrays[key])
  see_start(train.train(config, str(folder), console=QUIET).untrained)
  record = json.loads((folder / 'start.json').read_text())
  assert record['file'] == path.name and len(record['sha256']) == 64
  saved(path, arrays | {'bn1.bias': arrays['bn1.bias'] + 1})
  with pytest.raises(BadInput, match='not the file of weights'):
    train.train(config, str(folder), console=QUIET)
  path.unlink()
  see_start(train.train(config, str(folder), console=QUIET).untrained)
  stored = finished_run.config_of(folder)
  see_start(finished_run.restore(stored, folder, 'untrained', QUIET)[1])
  np.testing.assert_array_equal(
      saved_encoder.of_run(folder, encoder='untrained').variables.params[
          'backbone']['bn1']['bias'], arrays['bn1.bias'])
  config.model.init_from = ''
  with pytest.raises(BadInput, match='differs in model.init_from'):
    train.train(config, str(folder), console=QUIET)
