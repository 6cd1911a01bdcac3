"""Weights of other programs, of which the user names the network."""

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import fedu_jax
from fedu_jax.encoders import named_network
from fedu_jax.encoders import weights_file
from fedu_jax.encoders.named_network import Named
from fedu_jax.models import torch_names
from fedu_jax.runtime.errors import BadInput
from tests.helpers import saved_run

SIZE = saved_run.SIZE
IMAGES = np.random.RandomState(3).randint(0, 256, (3, SIZE, SIZE, 3)).astype(
    np.uint8)
MINE = {'network': 'resnet6', 'image_size': SIZE, 'normalise': 'none'}


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
  return fedu_jax.load(saved_run.make(tmp_path_factory.mktemp('runs') / 'run'))


@pytest.fixture(scope='module')
def arrays(encoder):
  """The weights by PyTorch's names, and some of a classifier."""
  found = safetensors_numpy.load(weights_file.to_bytes(encoder))
  return {**found, 'fc.weight': np.zeros((10, 8), np.float32)}


def saved(folder, arrays):
  path = folder / 'theirs.safetensors'
  path.write_bytes(safetensors_numpy.save(arrays, {'format': 'pt'}))
  return path


def test_weights_without_a_record_are_the_named_network(
    encoder, arrays, tmp_path):
  path = saved(tmp_path, arrays)
  found = fedu_jax.load(path, **MINE)
  np.testing.assert_array_equal(found(IMAGES), encoder(IMAGES))
  assert found.about.shape == encoder.about.shape
  assert found.about.features == encoder.about.features
  about = fedu_jax.load(path, network='resnet6').about
  assert about.shape == (224, 224, 3) and about.constants


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16])
def test_weights_of_16_bits_are_read_as_float32(dtype, arrays, tmp_path):
  narrow = {key: x.astype(dtype) if x.dtype == np.float32 else x
            for key, x in arrays.items()}
  found, record = weights_file.read(saved(tmp_path, narrow))
  assert record is None
  for key, x in narrow.items():
    assert found[key].dtype == (np.int64 if x.dtype == np.int64
                                else np.float32)
    np.testing.assert_array_equal(found[key], x.astype(found[key].dtype))


def test_shapes_say_stem_width_patch_and_channels(tmp_path):
  """A ViT's position embeddings say its size: 14 x 14 patches of 16 pixels."""
  about = lambda arrays, *named: named_network.about(
      tmp_path / 'a.safetensors', arrays, Named(*named))
  resnet = about({'conv1.weight': np.zeros((32, 1, 7, 7))}, 'resnet18')
  assert resnet.model['stem'] == 'imagenet' and resnet.model['width'] == 32
  assert resnet.channels == resnet.reading['channels'] == 1
  vit = about({'patch_embed.proj.weight': np.zeros((192, 3, 16, 16)),
               'pos_embed': np.zeros((1, 197, 192))}, 'vit_tiny')
  assert vit.model['patch'] == 16 and vit.model['width'] == 64
  assert vit.size == (224, 224)


@pytest.mark.parametrize('changes, named, complaint', [
    ({}, {}, 'not exported by fedu_jax.*--network, one of resnet18'),
    ({}, {'network': 'os:system'}, '--network, one of resnet18'),
    ({}, {'network': 'resnet10'}, 'another network: .* missing, such as layer'),
    ({}, {'network': 'vit_tiny'}, 'no vit_tiny.*no patch_embed.proj.weight'),
    ({}, MINE | {'normalise': 'half'}, 'choose none or imagenet'),
    ({'conv1.weight': np.zeros((4, 3, 5, 5))}, MINE, 'stem of 5x5 kernels'),
    ({'conv1.weight': np.zeros((4, 2, 3, 3))}, MINE, 'another conv1.weight'),
    ({'conv1.weight': np.zeros((4, 3, 7, 7))}, MINE, '16, .*takes 32 pixels'),
    ({'extra': np.zeros(1)}, MINE, '1 unexpected, such as extra'),
    ({'patch_embed.proj.weight': np.zeros((10, 3, 4, 4)),
      'pos_embed': np.zeros((1, 5, 10))}, {'network': 'vit_tiny'},
     'the 3 heads of vit_tiny cannot share'),
    ({'patch_embed.proj.weight': np.zeros((6, 3, 4, 4)),
      'pos_embed': np.zeros((1, 5, 6))},
     {'network': 'vit_tiny', 'image_size': 16}, 'are for 8 pixels')])
def test_what_does_not_fit_is_refused(
    changes, named, complaint, arrays, tmp_path):
  path = saved(tmp_path, arrays | changes)
  with pytest.raises(BadInput, match=complaint) as caught:
    fedu_jax.load(path, **named)
  assert '\n' not in str(caught.value)


def test_what_says_its_network_is_not_named_again(encoder, tmp_path):
  path = tmp_path / 'ours.safetensors'
  path.write_bytes(weights_file.to_bytes(encoder))
  with pytest.raises(BadInput, match='itself: leave out --network'):
    fedu_jax.load(path, **MINE)
  run = saved_run.make(tmp_path / 'run')
  with pytest.raises(BadInput, match='the run in .* itself: leave out'):
    fedu_jax.load(run, network='resnet6')


def test_timms_resnet18(tmp_path):
  """Each weight is in its place, and the classifier is left out."""
  timm = pytest.importorskip('timm')
  model = timm.create_model('resnet18', num_classes=5)
  theirs = {key: x.numpy() for key, x in model.state_dict().items()}
  encoder = fedu_jax.load(saved(tmp_path, theirs), network='resnet18')
  assert encoder.about.features == 512 and encoder.about.constants
  ours = torch_names.to_torch(encoder.variables)
  assert theirs.keys() - ours.keys() == {'fc.weight', 'fc.bias'}
  for key, x in ours.items():
    np.testing.assert_array_equal(x, theirs[key])
