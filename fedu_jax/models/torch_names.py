"""Names and layouts that PyTorch has for a network's weights.

A backbone's keys are those of torchvision and timm, as `layer1.0.conv1.weight`,
`layer2.0.downsample.0.weight` or `blocks.0.attn.qkv.weight`; those of a
projector begin with `projector.`. Kernels of convolutions are [F, C, k, k]
there, and kernels of dense layers [F, D].
"""

from collections.abc import Mapping
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core import trees
from fedu_jax.core.state import Variables

# Endings of pickles, which may run any program when they are read; and how to
# convert one in PyTorch.
PICKLES = '.pth', '.pt', '.bin', '.ckpt', '.pkl'
CONVERT = ('a pickle may run any program when it is read. Convert it in '
           'PyTorch: state = torch.load(FILE, weights_only=True); '
           "safetensors.torch.save_file(state, 'start.safetensors')")
_CLASSIFIERS = 'fc', 'head'  # of torchvision, and of timm
# What PyTorch's BatchNorm counts. Only an average without momentum uses it.
_COUNT = 'num_batches_tracked'
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean',
           'var': 'running_var'}
_MODULES = {'shortcut': 'downsample.0', 'shortcut_bn': 'downsample.1',
            'patch_embed': 'patch_embed.proj'}
_NUMBERED = r'(layer\d+|blocks)_(\d+)'


class _Name(NamedTuple):
  """What PyTorch has for one array of ours."""
  key: str
  shape: tuple[int, ...]
  axes: tuple[int, ...]  # of ours, in PyTorch's order


def to_torch(variables: Variables) -> dict[str, np.ndarray]:
  """Returns a network's weights by PyTorch's keys, in PyTorch's layouts.

  Args:
    variables: the weights of an encoder, or of any of its modules.
  """
  arrays = {}
  for name, x in zip(_names(variables), jax.tree.leaves(variables),
                     strict=True):
    arrays[name.key] = np.ascontiguousarray(np.asarray(x).transpose(name.axes))
    if name.key.endswith('.running_var'):
      arrays[name.key.replace('running_var', _COUNT)] = np.array(0)
  return arrays


def from_torch(arrays: Mapping[str, np.ndarray], like: Variables) -> Variables:
  """Returns a network's weights from PyTorch's.

  Args:
    arrays: the weights by PyTorch's keys. `num_batches_tracked` is not used.
    like: a network of the same architecture, or its shapes.

  Returns:
    The weights, in the structure and the dtypes of `like`.

  Raises:
    ValueError: keys are missing or unexpected, or a shape is another; the
      message is one line.
  """
  names = _names(like)
  if wrong := differences(arrays, like):
    raise ValueError(wrong)
  leaves, structure = jax.tree.flatten(like)
  made = []
  for name, leaf in zip(names, leaves, strict=True):
    ours = np.transpose(arrays[name.key], np.argsort(name.axes))
    made.append(jnp.array(ours, leaf.dtype))  # a copy: `arrays` may change
  result: Variables = jax.tree.unflatten(structure, made)
  return result


def shapes(variables: Variables) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a network's weights in PyTorch, by its keys."""
  return {name.key: name.shape for name in _names(variables)}


def differences(arrays: Mapping[str, np.ndarray], like: Variables) -> str:
  """Describes in one line what keeps weights from being those of a network.

  Args:
    arrays: the weights by PyTorch's keys.
    like: the network, or its shapes.

  Returns:
    Missing and unexpected keys and other shapes, the first of each; '' if
    there are none.
  """
  wanted = shapes(like)
  found = {key: x.shape for key, x in arrays.items()
           if key.rpartition('.')[2] != _COUNT}
  missing = [key for key in wanted if key not in found]
  unexpected = [key for key in found if key not in wanted]
  others = [f'{key}, {list(found[key])} instead of {list(shape)}'
            for key, shape in wanted.items() if found.get(key, shape) != shape]
  return '; '.join(
      f'{len(keys)} {what}, such as {keys[0]}' for what, keys in (
          ('missing', missing), ('unexpected', unexpected),
          ('of another shape', others)) if keys)


def is_classifier(key: str) -> bool:
  """Whether a weight is of torchvision's or timm's classifier, by its key."""
  return key.partition('.')[0] in _CLASSIFIERS


def _names(variables: Variables) -> list[_Name]:
  """Returns a name for each leaf, in the order of the leaves."""
  return [_name(trees.path_names(path)[1:], x.shape) for path, x in
          jax.tree_util.tree_leaves_with_path(variables)]


def _name(path: list[str], shape: tuple[int, ...]) -> _Name:
  """Returns the name of an array by its path below its collection."""
  *modules, leaf = path
  if modules[:1] == ['backbone']:
    modules = modules[1:]
  parts = [re.sub(_NUMBERED, r'\1.\2', _MODULES.get(x, x)) for x in modules]
  axes = tuple(range(len(shape)))
  if leaf == 'kernel' and len(shape) > 1:
    axes = (*axes[:-3:-1], *axes[:-2])
  return _Name('.'.join([*parts, _LEAVES.get(leaf, leaf)]),
               tuple(shape[i] for i in axes), axes)
