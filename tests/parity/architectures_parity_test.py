"""Backbones against torchvision's and timm's, with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.models import networks
from fedu_jax.models import resnet
from fedu_jax.models import torch_names
from fedu_jax.models import vit

torch = pytest.importorskip('torch')

SIDE = 64
IMAGES = np.random.RandomState(0).rand(2, SIDE, SIDE, 3).astype(np.float32)
RESNETS = {'resnet18': (resnet.BasicBlock, (2, 2, 2, 2)),
           'resnet34': (resnet.BasicBlock, (3, 4, 6, 3)),
           'resnet50': (resnet.Bottleneck, (3, 4, 6, 3))}


def arrays_of(model):
  return {key: x.numpy() for key, x in model.state_dict().items()
          if key.partition('.')[0] not in ('fc', 'head')}


def in_torch(model, images):
  with torch.no_grad():
    return model(torch.tensor(images).permute(0, 3, 1, 2)).numpy()


def shapes_of(backbone):
  return networks.variables(jax.eval_shape(
      lambda: backbone.init(jax.random.key(0), IMAGES, train=True)))


def wild(model):
  """Moves BatchNorm's weights and statistics away from their start."""
  torch.manual_seed(1)
  for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      torch.nn.init.uniform_(module.weight, 0.2, 0.5)
      torch.nn.init.normal_(module.bias, std=0.2)
      torch.nn.init.normal_(module.running_mean, std=0.2)
      torch.nn.init.uniform_(module.running_var, 0.5, 2)
  return model


@functools.cache
def resnets(name):
  """Torchvision's model, our backbone and the same weights."""
  torchvision = pytest.importorskip('torchvision')
  torch.manual_seed(0)
  model = wild(torchvision.models.get_model(name))
  model.fc = torch.nn.Identity()
  block, stages = RESNETS[name]
  backbone = resnet.ResNet(block, stages, 64, stem='imagenet')
  return model, backbone, torch_names.from_torch(
      arrays_of(model), shapes_of(backbone))


def near(ours, theirs, rtol=1e-4):
  """Within `rtol` of the norm."""
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.shape == theirs.shape
  assert np.linalg.norm(ours - theirs) <= rtol * np.linalg.norm(theirs)


@pytest.mark.parametrize('name', RESNETS)
def test_resnets_are_torchvisions_in_evaluation(name):
  model, backbone, variables = resnets(name)
  ours = jax.jit(functools.partial(backbone.apply, train=False))(
      variables._asdict(), IMAGES)
  near(ours, in_torch(model.eval(), IMAGES), 1e-5)


@pytest.mark.parametrize('name', RESNETS)
def test_resnets_are_torchvisions_in_training(name):
  """The features, and the statistics that are tracked."""
  model, backbone, variables = resnets(name)
  before = {key: x.clone() for key, x in model.state_dict().items()}
  ours, after = jax.jit(functools.partial(networks.forward, backbone))(
      variables, IMAGES)
  near(ours, in_torch(model.train(), IMAGES))
  found = torch_names.to_torch(after)
  moved = 0
  for key, x in arrays_of(model).items():
    if 'num_batches_tracked' not in key:
      near(found[key], x)
      moved += not np.array_equal(x, before[key])
  assert moved == 2 * sum('running_mean' in key for key in found)
  model.load_state_dict(before)


def test_the_pixels_of_imagenet_are_normalised_as_torchvision_does():
  torchvision = pytest.importorskip('torchvision')
  model, backbone, variables = resnets('resnet18')
  ours = jax.jit(functools.partial(
      backbone.clone(normalise='imagenet').apply, train=False))(
          variables._asdict(), IMAGES)
  preset = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
  scale = torchvision.transforms.Normalize(preset.mean, preset.std)
  with torch.no_grad():
    theirs = model.eval()(scale(torch.tensor(IMAGES).permute(0, 3, 1, 2)))
  near(ours, theirs.numpy(), 1e-5)


def test_the_gradient_of_the_stem_is_torchvisions():
  """Of the 7x7 convolution, BatchNorm and the max-pool."""
  torchvision = pytest.importorskip('torchvision')
  model = wild(torchvision.models.resnet18())
  stem = torch.nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
  weights = np.random.RandomState(1).randn(2, 64).astype(np.float32)
  backbone = resnet.ResNet(resnet.BasicBlock, (), 64, stem='imagenet')
  variables = torch_names.from_torch(
      {key: x for key, x in arrays_of(model).items()
       if key.startswith(('conv1', 'bn1'))}, shapes_of(backbone))

  def value(params):
    y, _ = networks.forward(backbone, variables._replace(params=params), IMAGES)
    return jnp.square(y * weights).sum()
  found = jax.jit(jax.grad(value))(variables.params)
  y = stem(torch.tensor(IMAGES).permute(0, 3, 1, 2)).mean((2, 3))
  (y * torch.tensor(weights)).square().sum().backward()
  near(found['conv1']['kernel'].transpose(3, 2, 0, 1), model.conv1.weight.grad)
  near(found['bn1']['scale'], model.bn1.weight.grad)


@pytest.mark.parametrize('name, heads', [('vit_tiny', 3), ('vit_small', 6)])
def test_vits_are_timms(name, heads):
  timm = pytest.importorskip('timm')
  torch.manual_seed(0)
  model = timm.create_model(f'{name}_patch16_224', img_size=SIDE,
                            num_classes=0).eval()
  backbone = vit.ViT(12, heads, 64, 16)
  variables = torch_names.from_torch(arrays_of(model), shapes_of(backbone))
  assert variables.batch_stats == {}
  ours = jax.jit(functools.partial(backbone.apply, train=False))(
      variables._asdict(), IMAGES)
  near(ours, in_torch(model, IMAGES), 1e-5)


def test_timms_resnet_has_the_same_keys():
  timm = pytest.importorskip('timm')
  _, backbone, variables = resnets('resnet50')
  arrays = torch_names.to_torch(variables)
  model = timm.create_model('resnet50', num_classes=0).eval()
  model.load_state_dict({key: torch.tensor(x) for key, x in arrays.items()})
  ours = jax.jit(functools.partial(backbone.apply, train=False))(
      variables._asdict(), IMAGES)
  near(ours, in_torch(model, IMAGES), 1e-5)
