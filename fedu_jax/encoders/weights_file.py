"""Encoders as safetensors files, with PyTorch's names of weights.

The text `fedu_jax` of the file's metadata is the record of the encoder. A file
holds numbers and texts; reading one executes nothing of it.
"""

from collections.abc import Mapping
import inspect
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from fedu_jax.core.state import Variables
from fedu_jax.encoders import about as about_lib
from fedu_jax.encoders.about import About
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.models import networks
from fedu_jax.models import torch_names
from fedu_jax.runtime.errors import BadInput

_OURS = 'fedu_jax'  # the name of the record in a file's metadata


def to_bytes(encoder: Encoder) -> bytes:
  """Returns the contents of a safetensors file.

  Raises:
    BadInput: the network is none of ours, so that nobody knows its names.
  """
  about = encoder.about
  network(about.model, projector=about.projector)  # refuses one's own
  variables = encoder.variables
  if not about.projector:
    variables = Variables(*(
        {name: x for name, x in collection.items() if name != 'projector'}
        for collection in variables))
  return safetensors_numpy.save(
      torch_names.to_torch(variables),
      {'format': 'pt', _OURS: about_lib.to_json(about)})


def load(path: pathlib.Path) -> Encoder:
  """Reads an encoder that `to_bytes` made.

  Raises:
    BadInput: the file is missing, damaged, or not one of ours.
  """
  arrays, record = read(path)
  if record is None:
    raise BadInput(
        f'{path} was not exported by fedu_jax, so that its network is not '
        'known: name it with --network, or convert a run with fedu_jax.export')
  nets = network(record.model, projector=record.projector)
  return Encoder(nets.encoder, weights(path, arrays, nets, record.shape),
                 record)


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], About | None]:
  """Reads the arrays of a safetensors file, and our record if it has one.

  Raises:
    BadInput: the file is missing, damaged, or of another kind.
  """
  if path.suffix in ('.pth', '.pt', '.bin', '.ckpt', '.pkl'):
    raise BadInput(
        f'{path} is a pickle, which may run any program when it is read: '
        'convert it in PyTorch, by safetensors.torch.save_file(state_dict, '
        "'encoder.safetensors')")
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      metadata: dict[str, str] = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}
  except FileNotFoundError as error:
    raise BadInput(f'there is no file {path}') from error
  except (OSError, TypeError, safetensors.SafetensorError) as error:
    raise BadInput(f'{path} is not a readable safetensors file ({error}): copy '
                   'it here again') from error
  record = metadata.get(_OURS)
  return arrays, record and about_lib.from_json(record, str(path)) or None


def network(model: Mapping[str, Any], *, projector: bool) -> networks.Nets:
  """Builds one of our networks.

  Args:
    model: the fields of config.model.
    projector: whether it has the projector of these fields; if not, its
      projector is the identity.

  Raises:
    BadInput: the name is none of ours. A file must not name a function to
      import.
  """
  build = networks.NETWORKS.get(str(model.get('name')))
  if build is None:
    raise BadInput(
        f'the network is {model.get("name")!r}, and weights have names for '
        f'{", ".join(networks.NETWORKS)}: export to .stablehlo, or load the '
        'workdir')
  taken = inspect.signature(build).parameters
  chosen = {name: x for name, x in model.items() if name in taken}
  return build(**chosen | ({} if projector else {'projector_layers': 0}))


def weights(path: pathlib.Path, arrays: Mapping[str, np.ndarray],
            nets: networks.Nets, shape: tuple[int, int, int]) -> Variables:
  """Puts arrays into the variables of an encoder.

  Args:
    path: the file of the arrays, for messages.
    arrays: the arrays by PyTorch's names.
    nets: the networks.
    shape: the shape of an image, [H, W, C].

  Raises:
    BadInput: names or shapes are not those of the network.
  """
  like = jax.eval_shape(lambda: networks.init_online(
      nets, jax.random.key(0), jnp.zeros((2, *shape)))).encoder
  try:
    return torch_names.from_torch(arrays, like)
  except ValueError as error:
    raise BadInput(f'{path} holds another network: {error}') from error
