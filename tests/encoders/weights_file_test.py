"""An encoder in a safetensors file, and back."""

import json

import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

import fedu_jax
from fedu_jax.encoders import weights_file
from fedu_jax.runtime.errors import BadInput
from tests.helpers import saved_run

IMAGES = np.random.RandomState(3).randint(0, 256, (3, 16, 16, 3)).astype(
    np.uint8)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return saved_run.make(tmp_path_factory.mktemp('runs') / 'run')


@pytest.mark.parametrize('projector', [False, True])
def test_a_file_has_the_run_s_features_and_what_is_needed(
    projector, run, tmp_path):
  own = fedu_jax.load(run, projector=projector)
  path = tmp_path / 'encoder.safetensors'
  path.write_bytes(weights_file.to_bytes(own))
  found = fedu_jax.load(path)
  assert found.about == own.about
  np.testing.assert_array_equal(found(IMAGES), own(IMAGES))
  with safetensors.safe_open(path, framework='numpy') as file:
    names, metadata = set(file.keys()), file.metadata()
  assert any(x.startswith('projector.') for x in names) == projector
  assert 'layer2.0.downsample.0.weight' in names
  said = json.loads(metadata['fedu_jax'])
  assert said['licence'] == 'not stated'
  assert said['input'] == 'uint8 [N, 16, 16, 3], RGB'
  assert said['features'] == own(IMAGES).shape[1]


def test_what_is_no_such_file_is_refused(run, tmp_path):
  path = tmp_path / 'x.safetensors'
  with pytest.raises(BadInput, match='there is no file'):
    fedu_jax.load(path)
  whole = weights_file.to_bytes(fedu_jax.load(run))
  for content in (b'', b'abc', whole[:-1]):
    path.write_bytes(content)
    with pytest.raises(BadInput, match='not a readable safetensors file'):
      fedu_jax.load(path)
  pickled = tmp_path / 'x.pth'
  pickled.write_bytes(b'')
  with pytest.raises(BadInput, match='pickle.*weights_only=True.*save_file'):
    fedu_jax.load(pickled)
  path.write_bytes(safetensors_numpy.save({'conv1.weight': np.zeros(3)}))
  with pytest.raises(BadInput, match='not exported by fedu_jax.*--network'):
    fedu_jax.load(path)
  path.write_bytes(safetensors_numpy.save({
      'conv1.weight': np.zeros(3, np.uint8)}))
  with pytest.raises(BadInput, match='conv1.weight as U8, which is not read'):
    fedu_jax.load(path)
  path.write_bytes(whole)
  for asked in ({'projector': True}, {'encoder': 'alone0'}):
    with pytest.raises(BadInput, match='without a projector|holds the enc'):
      fedu_jax.load(path, **asked)


@pytest.mark.parametrize('changes, complaint', [
    ({'format': 2}, 'later version'),
    ({'size': [0, 3]}, 'damaged'), ({'channels': 2}, 'damaged'),
    ({'model': {'name': 'os:system'}}, 'names for resnet18'),
    ({'model': {'name': 'resnet6', 'width': 4}}, 'another network')])
def test_a_wrong_record_is_refused(changes, complaint, run, tmp_path):
  """Its network is one of ours: no name in a file is imported."""
  path = tmp_path / 'x.safetensors'
  path.write_bytes(weights_file.to_bytes(fedu_jax.load(run)))
  with safetensors.safe_open(path, framework='numpy') as file:
    arrays = {name: file.get_tensor(name) for name in file.keys()}
    record = json.loads(file.metadata()['fedu_jax'])
  path.write_bytes(safetensors_numpy.save(
      arrays, {'fedu_jax': json.dumps(record | changes)}))
  with pytest.raises(BadInput, match=complaint):
    fedu_jax.load(path)
