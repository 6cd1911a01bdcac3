"""Converts the PyTorch implementation's parameters and buffers to ours."""

import jax.numpy as jnp

import fedu_jax
from fedu_jax.core.state import Variables
from tests.helpers import torch_fedu


def array(tensor):
  return jnp.asarray(tensor.detach().numpy().copy())


def _conv(module):
  return {'kernel': array(module.weight).transpose(2, 3, 1, 0)}


def _merge(pairs):
  """Converts {name: (params, stats)} to two nested dicts."""
  return ({k: p for k, (p, _) in pairs.items()},
          {k: s for k, (_, s) in pairs.items() if s})


def _norm(module):
  return ({'scale': array(module.weight), 'bias': array(module.bias)},
          {'mean': array(module.running_mean),
           'var': array(module.running_var)})


def _mlp(module):
  def linear(layer):
    return {'kernel': array(layer.weight).T, 'bias': array(layer.bias)}, {}
  return _merge({'linear1': linear(module[0]), 'bn': _norm(module[1]),
                 'linear2': linear(module[3])})


def _block(module):
  pairs: dict[str, tuple[dict, dict]] = {}
  for i in (1, 2, 3):
    if hasattr(module, f'conv{i}'):
      pairs[f'conv{i}'] = (_conv(getattr(module, f'conv{i}')), {})
      pairs[f'bn{i}'] = _norm(getattr(module, f'bn{i}'))
  if len(module.shortcut):
    pairs['shortcut'] = (_conv(module.shortcut[0]), {})
    pairs['shortcut_bn'] = _norm(module.shortcut[1])
  return _merge(pairs)


def from_torch(module) -> Variables:
  """Translates an encoder's or an MLP's parameters and buffers."""
  if not isinstance(module, torch_fedu.Encoder):
    return Variables(*_mlp(module))
  stages = module.stages
  names = [f'layer{i + 1}_{j}' for i, n in enumerate(stages) for j in range(n)]
  pairs = {'conv1': (_conv(module.conv1), {}), 'bn1': _norm(module.bn1)}
  pairs |= {name: _block(x) for name, x in zip(names, module.layers)}
  return Variables(*_merge({'backbone': _merge(pairs),
                            'projector': _mlp(module.fc)}))


def online_from(encoder, predictor):
  return fedu_jax.Online(from_torch(encoder), from_torch(predictor))
