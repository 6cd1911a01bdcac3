"""Networks: sizes, initialisation and BatchNorm's conventions."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.core import trees
from fedu_jax.models import batchnorm
from fedu_jax.models import layers
from fedu_jax.models import networks
from fedu_jax.models import resnet
from fedu_jax.models import vit
from tests.helpers import small

IMAGES = jnp.zeros((2, 32, 32, 3))


def count(tree):
  return sum(np.prod(x.shape) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('make, backbone, projector, features, convs', [
    (networks.resnet18, 11_168_832, 10_500_096, 512, 17),
    (networks.resnet50, 23_500_352, 16_791_552, 2048, 49)])
def test_sizes_of_the_reference(make, backbone, projector, features, convs):
  """The counts are those of the released code (facts B2, A4)."""
  nets = make()
  online = jax.eval_shape(lambda: networks.init_online(
      nets, jax.random.key(0), IMAGES))
  encoder = online.encoder.params
  assert count(encoder['backbone']) == backbone
  assert count(encoder['projector']) == projector
  assert count(online.predictor.params) == 16_791_552
  distances = jax.eval_shape(trees.conv_distances, encoder, encoder)
  assert len(distances) == convs
  below = jax.eval_shape(lambda v: nets.encoder.apply(
      v._asdict(), IMAGES, method='features'), online.encoder)
  assert below.shape == (2, features)


@pytest.mark.parametrize('make, backbone, features', [
    (networks.resnet18, 11_176_512, 512),
    (networks.resnet34, 21_284_672, 512),
    (networks.resnet50, 23_508_032, 2048),
    (networks.vit_tiny, 5_524_416, 192)])
def test_sizes_for_large_images(make, backbone, features):
  """The counts are torchvision's and timm's, without their classifiers."""
  nets = make(stem='imagenet')
  images = jnp.zeros((2, 224, 224, 3))

  def both():
    online = networks.init_online(nets, jax.random.key(0), images)
    return online, nets.encoder.apply(online.encoder._asdict(), images,
                                      method='features')
  online, below = jax.eval_shape(both)
  assert count(online.encoder.params['backbone']) == backbone
  assert below.shape == (2, features)


@pytest.mark.parametrize('make', [
    lambda kind: resnet.ResNet(resnet.BasicBlock, (), 2, normalise=kind),
    lambda kind: vit.ViT(1, 1, 4, 4, normalise=kind)])
def test_normalised_networks_see_normalised_pixels(make):
  """By ImageNet's constants; grey ones by the means of the three."""
  draw = np.random.RandomState(0)
  mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
  for channels in (3, 1):
    x = draw.rand(2, 8, 8, channels).astype(np.float32)
    if channels == 1:
      mean, deviation = mean.mean(), deviation.mean()
    variables = make('none').init(jax.random.key(0), x, train=False)
    here, there, other = (
        make(kind).apply(variables, images, train=False) for kind, images in (
            ('imagenet', x), ('none', (x - mean) / deviation), ('none', x)))
    np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-5)
    assert np.abs(here - other).max() > 1e-3


def test_initialisation_is_pytorchs():
  """Uniform in +-1/sqrt(fan_in), biases too; BatchNorm starts as identity."""
  nets = networks.resnet18(width=16, hidden=64, features=32)
  online = networks.init_online(nets, jax.random.key(0), IMAGES)
  params = online.encoder.params
  for leaf, fan_in in [
      (params['backbone']['conv1']['kernel'], 9 * 3),
      (params['backbone']['layer2_0']['conv2']['kernel'], 9 * 32),
      (params['backbone']['layer2_0']['shortcut']['kernel'], 16),
      (params['projector']['linear1']['kernel'], 128),
      (params['projector']['linear1']['bias'], 128),
      (online.predictor.params['linear2']['bias'], 64)]:
    bound = fan_in ** -0.5
    assert 0.85 * bound < np.abs(leaf).max() <= bound
    assert np.abs(leaf.mean()) < 4 * bound / np.sqrt(3 * leaf.size)
  norm = params['backbone']['bn1']
  np.testing.assert_array_equal(norm['scale'], 1)
  np.testing.assert_array_equal(norm['bias'], 0)
  stats = online.encoder.batch_stats['backbone']['bn1']
  np.testing.assert_array_equal(stats['mean'], 0)  # initialising tracks nothing
  np.testing.assert_array_equal(stats['var'], 1)


def test_batch_norm_tracks_the_unbiased_variance():
  x = np.random.RandomState(0).randn(3, 2, 2, 5).astype(np.float32) * 3 + 1
  norm = batchnorm.BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=True)
  y, changed = norm.apply(variables, x, train=True, mutable=['batch_stats'])
  mean, biased = x.mean((0, 1, 2)), x.var((0, 1, 2))
  unbiased = x.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(biased + 1e-5), rtol=1e-4,
                             atol=1e-5)
  stats = jax.tree.map(np.asarray, changed['batch_stats'])
  np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * unbiased, rtol=1e-5)
  y = norm.apply({**variables, **changed}, x, train=False)
  np.testing.assert_allclose(
      y, (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5), rtol=1e-4,
      atol=1e-5)


@pytest.mark.parametrize('block', [
    resnet.BasicBlock, resnet.Bottleneck])
def test_bfloat16_computes_narrow_and_keeps_wide(block):
  """Results are near float32's and differ; stored numbers are float32."""
  x = jnp.asarray(np.random.RandomState(0).rand(16, 8, 8, 3), jnp.float32)
  outputs = []
  for dtype in ('float32', 'bfloat16'):
    encoder = networks.Encoder(resnet.ResNet(block, (1, 1), 4, dtype),
                               layers.MLP(32, 16, dtype))
    variables = encoder.init(jax.random.key(0), x, train=True)
    y, changed = jax.jit(lambda v, encoder=encoder: encoder.apply(
        v, x, train=True, mutable=['batch_stats']))(variables)
    features = encoder.apply(variables, x, method='features')
    for leaf in jax.tree.leaves((variables, y, changed, features)):
      assert leaf.dtype == jnp.float32
    outputs.append((features, changed))
  small.check_close(*outputs, rtol=0.02, atol=0.01)
  assert np.abs(outputs[0][0] - outputs[1][0]).max() > 1e-4


@pytest.mark.parametrize('make', [
    networks.resnet10, networks.resnet18, networks.resnet50])
def test_bfloat16_reaches_every_product(make):
  """Of a GPU. The heads' sums are in float32."""
  nets = make(width=4, hidden=32, features=16, dtype='bfloat16')
  online = jax.eval_shape(lambda: networks.init_online(
      nets, jax.random.key(0), IMAGES))

  def both(online, images):
    z, _ = networks.forward(nets.encoder, online.encoder, images)
    return networks.forward(nets.predictor, online.predictor, z)[0]
  lines = jax.jit(both).trace(online, IMAGES).lower(
      lowering_platforms=('cuda',)).as_text().splitlines()
  for kind, least, result in (('convolution', 8, 'bf16>'),
                              ('dot_general', 4, 'f32>')):
    types = [line.rsplit(' : ', 1)[1] for line in lines
             if f'stablehlo.{kind}' in line]
    assert len(types) >= least
    for signature in types:
      factors, made = signature.split(' -> ')
      assert factors.count('xbf16>') == 2 and made.endswith(result)


def test_fitted_statistics_are_the_batches_mean_and_keep_no_trace():
  """For any earlier statistics, with our BatchNorm and Flax's momentum."""
  draw = np.random.RandomState(0)
  batches = [draw.randn(8, 5).astype(np.float32) * 3 + 50 for _ in range(4)]

  class Flaxen(nn.Module):
    """A user's own network with another momentum."""
    @nn.compact
    def __call__(self, x, *, train):
      return nn.BatchNorm(use_running_average=not train, momentum=0.97)(x)

  for module, unbiased in [(batchnorm.BatchNorm(), 1), (Flaxen(), 0)]:
    start = networks.variables(module.init(
        jax.random.key(0), batches[0], train=True))
    wild = start._replace(batch_stats=jax.tree.map(
        lambda x: x * 0 + 1e3, start.batch_stats))
    ours, theirs = (networks.with_statistics_of(batches, module, x)
                    for x in (start, wild))
    small.check_equal(ours.batch_stats, theirs.batch_stats)
    stats = ours.batch_stats.get('BatchNorm_0', ours.batch_stats)
    np.testing.assert_allclose(
        stats['mean'], np.mean([x.mean(0) for x in batches], 0), rtol=1e-5)
    np.testing.assert_allclose(
        stats['var'], np.mean([x.var(0, ddof=unbiased) for x in batches], 0),
        rtol=1e-4)


@pytest.mark.parametrize('make', [networks.resnet18, networks.resnet50])
@pytest.mark.parametrize('convolution', ['fast', 'exact'])
def test_a_config_reaches_every_convolution(make, convolution, monkeypatch):
  """`model.convolution` sets the stem, the blocks and the shortcuts."""
  from configs import cifar10
  from fedu_jax.training.config import binding
  from fedu_jax.training.config import checks
  config = cifar10.get_config()
  config.model.update(name=make.__name__, width=4, hidden=8, features=4,
                      convolution=convolution)
  checks.check(config)
  seen = []

  def conv(x, kernel, stride, padding, exact, rounded=None):
    seen.append(exact)
    return original(x, kernel, stride, padding, exact, rounded)
  original = layers.convolution.conv
  monkeypatch.setattr(layers.convolution, 'conv', conv)
  nets = binding.bind(config, 'model')()
  jax.eval_shape(lambda: nets.encoder.init(
      jax.random.key(0), IMAGES, train=False))
  assert len(seen) == {'resnet18': 20, 'resnet50': 53}[make.__name__]
  assert set(seen) == {convolution == 'exact'}
