"""The record of a file of weights that no run of ours exported.

The file's keys are those of torchvision and timm. The user names the network.
The shapes of the weights say the rest.
"""

from collections.abc import Mapping
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from fedu_jax.encoders.about import About
from fedu_jax.models import networks
from fedu_jax.models import normalisation
from fedu_jax.models import resnet
from fedu_jax.models import torch_names
from fedu_jax.runtime.errors import BadInput

SIZE = 224  # pixels of a side, if neither the user nor a ViT says them
NORMALISE = 'imagenet'  # what torchvision's and timm's weights expect
_STEMS = {3: 'cifar', 7: 'imagenet'}  # by the side of the first kernel


class Named(NamedTuple):
  """What a user says of a file of weights.

  Attributes:
    network: a name of `networks.NETWORKS`; '' for a file that says it.
    image_size: pixels of an image's side; 0 for those of a ViT's position
      embeddings, and `SIZE` for a ResNet.
    normalise: one of `normalisation.KINDS`; '' for `NORMALISE`.
  """
  network: str = ''
  image_size: int = 0
  normalise: str = ''


def about(path: pathlib.Path, arrays: Mapping[str, np.ndarray],
          named: Named) -> About:
  """Makes the record of a file; its number of features is not filled in.

  Args:
    path: the file, for messages.
    arrays: its weights by PyTorch's names.
    named: what the user says.

  Raises:
    BadInput: there is no such network, or the weights are of another one.
  """
  if named.network not in networks.NETWORKS:
    raise BadInput(f'{path} was not exported by fedu_jax, so that its network '
                   'is not known: name it with --network, one of '
                   f'{", ".join(networks.NETWORKS)}')
  normalise = named.normalise or NORMALISE
  if normalise not in normalisation.KINDS:
    raise BadInput(f'--normalise is {normalise!r}: choose '
                   f'{" or ".join(normalisation.KINDS)}')
  if named.image_size < 0:
    raise BadInput(f'--image_size is {named.image_size}: give pixels')
  if named.network in networks.TRANSFORMERS:
    kernel = _kernel(path, arrays, named, 'patch_embed.proj.weight')
    model, size = _transformer(path, arrays, named, kernel.shape)
  else:
    kernel = _kernel(path, arrays, named, 'conv1.weight')
    model, size = _resnet(path, named, kernel.shape)
  return About(
      size=(size, size), channels=kernel.shape[1], dtype='uint8', features=0,
      reading={'channels': kernel.shape[1]}, encoder=path.name,
      model={'name': named.network, 'normalise': normalise,
             'projector_layers': 0, **model})


def backbone(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns weights without those of a classifier."""
  return {key: x for key, x in arrays.items()
          if not torch_names.is_classifier(key)}


def _kernel(path: pathlib.Path, arrays: Mapping[str, np.ndarray], named: Named,
            key: str) -> np.ndarray:
  """The kernel that sees pixels, [F, C, k, k]."""
  found = arrays.get(key)
  if found is None or found.ndim != 4 or found.shape[1] not in (1, 3) or (
      found.shape[2] != found.shape[3]):
    raise BadInput(
        f'{path} is no {named.network} with the keys of torchvision or timm: '
        f'it has {"no" if found is None else "another"} {key}')
  return found


def _resnet(path: pathlib.Path, named: Named,
            shape: tuple[int, ...]) -> tuple[dict[str, Any], int]:
  """The stem and the width by the first kernel, and the size of images."""
  width, _, side, _ = shape
  size = named.image_size or SIZE
  if side not in _STEMS:
    raise BadInput(f'{path} has a stem of {side}x{side} kernels, and '
                   f'{named.network} one of 3x3 or 7x7')
  stem = _STEMS[side]
  if size < resnet.LEAST[stem]:
    raise BadInput(f'--image_size is {size}, and the stem in {path} takes '
                   f'{resnet.LEAST[stem]} pixels or more')
  return {'stem': stem, 'width': width}, size


def _transformer(path: pathlib.Path, arrays: Mapping[str, np.ndarray],
                 named: Named,
                 shape: tuple[int, ...]) -> tuple[dict[str, Any], int]:
  """The patch and the width by the first kernel, and the size of images."""
  channels, _, patch, _ = shape
  places = arrays.get('pos_embed')
  heads = networks.HEADS[named.network]
  if places is None or places.ndim != 3 or channels % heads:
    raise BadInput(f'{path} is no {named.network}: it has no pos_embed'
                   if places is None or places.ndim != 3 else
                   f'{path} has {channels} channels, which the {heads} heads '
                   f'of {named.network} cannot share')
  size = patch * math.isqrt(max(0, places.shape[1] - 1))
  if named.image_size not in (0, size) or not size:
    raise BadInput(f'--image_size is {named.image_size}, and the position '
                   f'embeddings in {path} are for {size} pixels')
  return {'patch': patch, 'width': channels // heads}, size
