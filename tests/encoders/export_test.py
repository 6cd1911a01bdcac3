"""The same image files give the same features in other programs."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps
import pytest

from fedu_jax.encoders import export_file
from fedu_jax.encoders.about import About
from fedu_jax.encoders.encoder import embedded
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.models import networks
from fedu_jax.models.layers import MLP
from fedu_jax.models.resnet import BasicBlock
from fedu_jax.models.resnet import Bottleneck
from fedu_jax.models.resnet import ResNet
from fedu_jax.models.vit import ViT
from fedu_jax.runtime.errors import BadInput

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
  mode = 'RGB' if encoder.about.channels == 3 else 'L'
  images = np.stack([np.asarray(ImageOps.fit(
      Image.open(file).convert(mode), encoder.about.size[::-1],
      Image.Resampling.BILINEAR)) for file in files])
  images = images.reshape(len(files), *encoder.about.shape)
  return images if encoder.about.dtype == 'uint8' else images * np.uint16(257)


# The backbone, the layers of the projector, and fields of the record.
CASES = {
    'resnet6': (ResNet(BasicBlock, (1, 1), 4), 0, {}),
    'imagenet and projector': (
        ResNet(BasicBlock, (1, 1), 4, None, 'fast', 'imagenet', 'imagenet'), 2,
        {'size': (32, 32), 'projector': True}),
    'bottleneck, grey, 16 bits': (
        ResNet(Bottleneck, (2, 1), 2, None, 'fast', 'cifar', 'imagenet'), 0,
        {'channels': 1, 'dtype': 'uint16'}),
    'vit': (ViT(2, 3, 4, 8, None, 'imagenet'), 0, {})}


def made(name):
  """An encoder whose scales, biases and statistics differ by channel."""
  backbone, layers, record = CASES[name]
  about = About(**{'size': (16, 16), 'channels': 3, 'dtype': 'uint8',
                   'features': 1, **record}, model={
                       'name': 'resnet6', 'width': 4, 'normalise':
                       backbone.normalise})
  module = networks.Encoder(backbone, MLP(8, 4, None, layers))
  drawn = jax.jit(lambda key: module.init(
      key, jnp.zeros((1, *about.shape)), train=False))(jax.random.key(0))
  draw = np.random.RandomState(0)
  # All but kernels; tokens and places are [1, L, D].
  variables = jax.tree.map(lambda x: x if x.ndim in (2, 4) else jnp.asarray(
      x + draw.uniform(0, 0.5, x.shape), x.dtype), networks.variables(drawn))
  features = jax.eval_shape(lambda: embedded(
      jnp.zeros((1, *about.shape), jnp.uint8), variables, module=module,
      projector=about.projector)).shape[1]
  return Encoder(module, variables, about._replace(features=features))


@pytest.fixture(scope='module')
def encoders():
  return {name: made(name) for name in CASES}


@pytest.fixture(params=CASES)
def name(request):
  return request.param


@pytest.fixture
def encoder(encoders, name):
  return encoders[name]


@pytest.fixture(scope='module')
def wanted(encoders, files):
  images = [np.asarray(Image.open(file)) for file in files]
  return {name: encoder(images) for name, encoder in encoders.items()}


@pytest.fixture
def want(wanted, name):
  return wanted[name]


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


def test_jax_alone(encoders, wanted, files, tmp_path):
  """A process that has JAX, and imports nothing of this package or of Flax."""
  for i, encoder in enumerate(encoders.values()):
    write(encoder, tmp_path / f'{i}.stablehlo')
    np.save(tmp_path / f'{i}.npy', prepared(files, encoder))
  script = '''
import pathlib
import sys
import jax
import jax.export
import numpy as np
for path in pathlib.Path().glob('*.stablehlo'):
  exported = jax.export.deserialize(path.read_bytes())
  assert set(exported.platforms) == {'cpu', 'cuda', 'tpu'}
  assert exported.nr_devices == 1
  images = np.load(path.stem + '.npy')
  np.save(path.stem + '.found.npy', exported.call(images))
assert exported.call(images[:1]).shape[0] == 1
assert not {'fedu_jax', 'flax'} & sys.modules.keys()
'''
  done = subprocess.run([sys.executable, '-P', '-c', script], cwd=tmp_path,
                        capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  for i, (name, encoder) in enumerate(encoders.items()):
    check(np.load(tmp_path / f'{i}.found.npy'), wanted[name])
    said = json.loads((tmp_path / f'{i}.stablehlo.json').read_text())
    assert said['input'].startswith(f'{encoder.about.dtype} [N, ')


def test_the_pytorch_module_of_the_docs(encoders, wanted, files, tmp_path):
  torch = pytest.importorskip('torch')
  load_file = pytest.importorskip('safetensors.torch').load_file
  encoder, want = encoders['resnet6'], wanted['resnet6']
  text = (ROOT / 'docs' / 'encoders.md').read_text()
  code = text.split('```python\nimport torch\n')[1].split('```')[0]
  assert len([x for x in code.splitlines() if x]) < 15
  known: dict = {}
  exec('import torch\n' + code, known)
  weights = load_file(write(encoder, tmp_path / 'a.safetensors'))
  module = known['Backbone'](stages=(1, 1), width=4)
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
