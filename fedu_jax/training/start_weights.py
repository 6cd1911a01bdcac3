"""Weights that a run starts from: a safetensors file, named by model.init_from.

They are the backbone of the server's first network, and so of each client's
online and target encoders, of clients that train alone, and of the encoder that
is scored as untrained. A run keeps a copy of the file in its folder, with a
digest: it goes on and is scored when the file is gone, and notices another one.
"""

from collections.abc import Callable
import hashlib
import json
import math
import pathlib
from typing import NamedTuple

import numpy as np

from fedu_jax.core.state import Online, Variables
from fedu_jax.encoders import weights_file
from fedu_jax.models import torch_names
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import json_files
from fedu_jax.runtime import paths
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config.config_dict import Config

_COPY, _RECORD = 'start.safetensors', 'start.json'
_PROJECTOR = 'projector.'
_GREY = ('conv1.weight', 'patch_embed.proj.weight')  # kernels that see pixels


class Weights(NamedTuple):
  """A file of weights to start from.

  Attributes:
    path: the file.
    data: its contents.
    arrays: its arrays by PyTorch's names.
    normalise: the model.normalise of the run that exported it; '' if unknown.
  """
  path: pathlib.Path
  data: bytes
  arrays: dict[str, np.ndarray]
  normalise: str


def read(config: Config, folder: pathlib.Path, *,
         compare: bool = False) -> Weights | None:
  """Reads the weights that a config names; None if it names none.

  Args:
    config: the config of a run.
    folder: the folder of the run. Its copy is read, if there is one.
    compare: whether to see that the file, if it is still there, is the one that
      the run began with.

  Raises:
    BadInput: the file is missing, damaged, of another kind, not finite, or not
      the one that the run began with.
  """
  if not config.model.init_from:
    return None
  path = paths.typed(config.model.init_from, 'config.model.init_from')
  known = recorded(folder)
  if known and not (path.exists() and compare):
    path = folder / _COPY
  arrays, record = weights_file.read(path)
  if wrong := [key for key, x in arrays.items() if not np.isfinite(x).all()]:
    raise BadInput(f'{path} has {wrong[0]} with NaN or infinity: choose other '
                   'weights')
  try:
    data = path.read_bytes()
  except OSError as error:
    raise BadInput(f'{path} cannot be read ({error.strerror})') from error
  if known and _digest(data) != known:
    raise BadInput(f'{path} is not the file of weights that {folder} began '
                   f'with (see {_RECORD} there): restore it, or choose another '
                   '--workdir')
  normalise = str(record.model.get('normalise', 'none')) if record else ''
  return Weights(path, data, arrays, normalise)


def keep(folder: pathlib.Path,
         start: Weights | None) -> list[durable_files.Unwritten]:
  """Writes a copy of the file and its digest; returns what failed."""
  if start is None or recorded(folder):
    return []
  try:
    durable_files.write(folder / _COPY, start.data)
  except OSError as error:
    return [durable_files.Unwritten(f'{_COPY} could not be written', error)]
  failure = json_files.attempt(folder / _RECORD, {
      'sha256': _digest(start.data), 'file': start.path.name})
  return [failure] if failure else []


def _digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def recorded(folder: pathlib.Path) -> str:
  """Returns the digest of the file that a run began with, or ''."""
  try:
    return str(json.loads((folder / _RECORD).read_text())['sha256'])
  except (OSError, ValueError, TypeError, KeyError):
    return ''


def given(start: Weights, online: Online, config: Config) -> Online:
  """Puts weights into a network that has been drawn.

  Args:
    start: the weights.
    online: the network; what the file lacks, of projector and predictor, stays.
    config: the config of the run.

  Raises:
    BadInput: the file is of another network; the message is one line.
  """
  if start.normalise not in ('', config.model.normalise):
    raise BadInput(f'{start.path} was trained with config.model.normalise='
                   f'{start.normalise}: set it so')
  encoder = online.encoder
  if 'backbone' not in encoder.params:
    raise BadInput(f'config.model.init_from is {start.path}, but '
                   f'{config.model.name} has no backbone with known names: use '
                   'a network of ours')
  for part in _parts(start):
    like = Variables(*({part: x[part]} if part in x else {} for x in encoder))
    arrays = _arrays(start, part, torch_names.shapes(like))
    _see_sizes(start.path, arrays, torch_names.shapes(like))
    try:
      found = torch_names.from_torch(arrays, like)
    except ValueError as error:
      raise BadInput(f'the {part} in {start.path} is another than that of '
                     f'config.model: {error}: set config.model.name to the '
                     'network of the file') from error
    encoder = Variables(*({**own, **new} for own, new in zip(encoder, found)))
  return online._replace(encoder=encoder)


def told(start: Weights | None, online: Online, config: Config) -> list[str]:
  """Says in one line what of a file is used; no line without a file."""
  if start is None:
    return []
  parts, arrays = _parts(start), start.arrays
  line = f'starts from the {" and the ".join(parts)} in {start.path}'
  if len(parts) == 1:
    line += '; the projector is drawn anew'
  if unused := [key for key in arrays if torch_names.is_classifier(key)]:
    line += f'; {", ".join(unused)} of a classifier are not used'
  shapes = torch_names.shapes(online.encoder)
  if any(_is_grey(arrays.get(key), shapes.get(key)) for key in _GREY):
    line += '; the kernels of red, green and blue are summed for grey images'
  if not start.normalise and config.model.normalise == 'none':
    line += ('; weights of torchvision and timm expect '
             'config.model.normalise=imagenet')
  return [line]


def _parts(start: Weights) -> list[str]:
  has = any(key.startswith(_PROJECTOR) for key in start.arrays)
  return ['backbone', 'projector'] if has else ['backbone']


def _is_grey(array: np.ndarray | None, shape: tuple[int, ...] | None) -> bool:
  """Whether a kernel of three colours is for a network of one."""
  return (array is not None and shape is not None and array.ndim == 4
          and (array.shape[1], shape[1]) == (3, 1))


def _arrays(start: Weights, part: str,
            shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """The arrays of a part, without a classifier, for grey images if need be."""
  chosen = {key: x for key, x in start.arrays.items()
            if key.startswith(_PROJECTOR) == (part == 'projector')
            and not torch_names.is_classifier(key)}
  for key in _GREY:
    if _is_grey(chosen.get(key), shapes.get(key)):
      chosen[key] = chosen[key].sum(1, keepdims=True)
  return chosen


def _see_sizes(path: pathlib.Path, arrays: dict[str, np.ndarray],
               shapes: dict[str, tuple[int, ...]]) -> None:
  """Refuses weights whose sizes a field of the config can match."""
  def grid(shape):
    return f'{(side := math.isqrt(shape[1] - 1))}x{side}'
  # An array, one of its axes, and what to say of its size there.
  cases: list[tuple[str, int, Callable]] = [
      ('conv1.weight', 2, lambda x: (
          f'a stem of {x[2]}x{x[2]} kernels', 'config.model.stem='
          + ('imagenet' if x[2] == 7 else 'cifar'))),
      ('patch_embed.proj.weight', 2, lambda x: (
          f'patches of {x[2]} pixels', f'config.model.patch={x[2]}')),
      ('conv1.weight', 1, lambda x: (
          f'{x[1]} channels', f'config.data.channels={x[1]}')),
      ('patch_embed.proj.weight', 1, lambda x: (
          f'{x[1]} channels', f'config.data.channels={x[1]}')),
      ('conv1.weight', 0, lambda x: (
          f'{x[0]} channels in its first stage', f'config.model.width={x[0]}')),
      ('pos_embed', 1, lambda x: (
          f'position embeddings of {grid(x)} patches',
          'config.data.image_size to the size that it was trained with'))]
  for key, axis, say in cases:
    theirs, ours = arrays.get(key), shapes.get(key)
    if theirs is None or ours is None or theirs.ndim != len(ours):
      continue
    if theirs.shape[axis] != ours[axis]:
      has, change = say(theirs.shape)
      mine, _ = say(ours)
      raise BadInput(f'{path} has {has}, and the network {mine}: set {change}')
