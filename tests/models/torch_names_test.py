"""Names and layouts of weights in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.models import networks
from fedu_jax.models import torch_names
from tests.helpers import small


def drawn(make=networks.resnet10, size=8, **choices):
  """Weights of an encoder, all different, without compiling it."""
  nets = make(width=2, hidden=6, features=5, **choices)
  shapes = jax.eval_shape(lambda: networks.init_online(
      nets, jax.random.key(0), jnp.zeros((1, size, size, 3)))).encoder
  draw = np.random.RandomState(0)
  return jax.tree.map(
      lambda x: jnp.asarray(draw.randn(*x.shape), x.dtype), shapes)


ENCODER = drawn()


def test_keys_and_layouts_are_torchvisions():
  arrays = torch_names.to_torch(ENCODER)
  params, stats = ENCODER.params['backbone'], ENCODER.batch_stats['backbone']
  for key, ours in {
      'conv1.weight': params['conv1']['kernel'].transpose(3, 2, 0, 1),
      'bn1.weight': params['bn1']['scale'],
      'bn1.running_mean': stats['bn1']['mean'],
      'layer1.0.bn2.running_var': stats['layer1_0']['bn2']['var'],
      'layer2.0.downsample.0.weight': params['layer2_0']['shortcut'][
          'kernel'].transpose(3, 2, 0, 1),
      'layer2.0.downsample.1.bias': params['layer2_0']['shortcut_bn']['bias'],
      'projector.linear1.weight': ENCODER.params['projector']['linear1'][
          'kernel'].T,
      'projector.bn.running_mean': ENCODER.batch_stats['projector']['bn'][
          'mean']}.items():
    np.testing.assert_array_equal(arrays[key], ours)
  assert arrays['bn1.num_batches_tracked'].dtype == np.int64
  assert arrays['bn1.num_batches_tracked'].shape == ()


def test_weights_come_back_as_they_left():
  arrays = torch_names.to_torch(ENCODER)
  shapes = jax.eval_shape(lambda: ENCODER)
  small.check_equal(torch_names.from_torch(arrays, shapes), ENCODER)
  assert torch_names.shapes(shapes) == {
      key: x.shape for key, x in arrays.items() if 'num_batches' not in key}


@pytest.mark.parametrize('change, message', [
    (lambda x: x.pop('bn1.weight'), '1 missing, such as bn1.weight'),
    (lambda x: x.update({'fc.bias': np.zeros(3)}),
     '1 unexpected, such as fc.bias'),
    (lambda x: x.update({'conv1.weight': np.zeros((2, 3, 7, 7))}),
     '1 of another shape, such as conv1.weight, [2, 3, 7, 7] instead of '
     '[2, 3, 3, 3]')])
def test_other_weights_are_refused_in_one_line(change, message):
  arrays = torch_names.to_torch(ENCODER)
  change(arrays)
  with pytest.raises(ValueError) as caught:
    torch_names.from_torch(arrays, ENCODER)
  assert str(caught.value) == message
