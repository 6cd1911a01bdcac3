"""The same image files give the same features in other programs."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
from PIL import Image
import pytest

import fedu_jax
from fedu_jax.encoders import export_file
from fedu_jax.runtime.errors import BadInput
from tests.helpers import saved_run

ROOT = pathlib.Path(__file__).parents[2]
ALIKE = 1e-4  # relative to the largest feature


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """Photographs of several sizes, in grey and in colour."""
  folder = tmp_path_factory.mktemp('files')
  draw = np.random.RandomState(0)
  for i, shape in enumerate([(16, 16, 3), (40, 21, 3), (19, 33, 3), (30, 50)]):
    Image.fromarray(draw.randint(0, 256, shape).astype(np.uint8)).save(
        folder / f'{i}.png')
  return sorted(folder.iterdir())


def prepared(files, encoder):
  """What a program without this package does, as the docs say it."""
  from PIL import ImageOps
  return np.stack([np.asarray(ImageOps.fit(
      Image.open(file).convert('RGB'), encoder.about.size[::-1],
      Image.Resampling.BILINEAR)) for file in files])


@pytest.fixture(scope='module', params=[False, True],
                ids=['features', 'imagenet and projector'])
def encoder(request, tmp_path_factory):
  run = saved_run.make(tmp_path_factory.mktemp('runs') / 'run',
                       model__width=4, **(
                           {'model__stem': 'imagenet', 'model__normalise':
                            'imagenet', 'data__image_size': 32}
                           if request.param else {}))
  return fedu_jax.load(run, projector=request.param)


@pytest.fixture(scope='module')
def want(encoder, files):
  return encoder([np.asarray(Image.open(file)) for file in files])


def write(encoder, path):
  export_file.write(path, encoder, export_file.writer(path))
  return path


def check(found, want):
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, want, rtol=0,
                             atol=ALIKE * np.abs(want).max())


def test_onnx_runtime(encoder, want, files, tmp_path):
  runtime = pytest.importorskip('onnxruntime')
  pytest.importorskip('onnx')
  session = runtime.InferenceSession(write(encoder, tmp_path / 'a.onnx'))
  for count in (len(files), 1):  # a free axis
    found, = session.run(None, {'images': prepared(files[:count], encoder)})
    check(found, want[:count])
  said = json.loads(session.get_modelmeta().custom_metadata_map['fedu_jax'])
  assert said['features'] == want.shape[1]


def test_jax_alone(encoder, want, files, tmp_path):
  """A process that has JAX, and imports nothing of this package or of Flax."""
  path = write(encoder, tmp_path / 'a.stablehlo')
  np.save(tmp_path / 'images.npy', prepared(files, encoder))
  script = '''
import sys
import jax
import numpy as np
with open('a.stablehlo', 'rb') as file:
  exported = jax.export.deserialize(file.read())
assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}
images = np.load('images.npy')
found = exported.call(images)
assert exported.call(images[:1]).shape[0] == 1
np.save('found.npy', found)
assert not {'fedu_jax', 'flax'} & sys.modules.keys()
'''.replace('import jax\n', 'import jax\nimport jax.export\n')
  done = subprocess.run([sys.executable, '-P', '-c', script], cwd=tmp_path,
                        capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  check(np.load(tmp_path / 'found.npy'), want)
  said = json.loads((tmp_path / 'a.stablehlo.json').read_text())
  assert said['input'].startswith('uint8 [N, ')
  assert jax.export.deserialize(path.read_bytes()).nr_devices == 1


def test_the_pytorch_module_of_the_docs(encoder, want, files, tmp_path):
  torch = pytest.importorskip('torch')
  load_file = pytest.importorskip('safetensors.torch').load_file
  if encoder.about.projector:
    pytest.skip('the module has no projector')
  text = (ROOT / 'docs' / 'encoders.md').read_text()
  code = text.split('```python\nimport torch\n')[1].split('```')[0]
  assert len([x for x in code.splitlines() if x]) < 15
  made: dict = {}
  exec('import torch\n' + code, made)
  weights = load_file(write(encoder, tmp_path / 'a.safetensors'))
  module = made['Backbone'](stages=(1, 1), width=4)
  module.load_state_dict(weights)
  with torch.no_grad():
    found = module.eval()(torch.from_numpy(prepared(files, encoder)))
  check(found.numpy(), want)


@pytest.mark.parametrize('name, complaint', [
    ('a.h5', 'must end in .safetensors, .onnx, .stablehlo'),
    ('no/a.onnx', 'there is no folder'), ('there.onnx', 'exists: remove it')])
def test_names_that_are_refused(name, complaint, tmp_path):
  (tmp_path / 'there.onnx').write_text('')
  with pytest.raises(BadInput, match=complaint):
    export_file.writer(tmp_path / name)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnx', None)
  with pytest.raises(BadInput, match=r"pip install 'fedu_jax\[export\]'"):
    export_file.writer(tmp_path / 'a.onnx')
