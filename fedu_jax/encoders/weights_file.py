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
from fedu_jax.encoders import named_network
from fedu_jax.encoders.about import About
from fedu_jax.encoders.encoder import embedded
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.encoders.named_network import Named
from fedu_jax.models import networks
from fedu_jax.models import torch_names
from fedu_jax.runtime.errors import BadInput

# The dtypes that are read, by the format's names. A count of batches is I64.
_DTYPES = 'F64', 'F32', 'F16', 'BF16', 'I64', 'I32'
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


def load(path: pathlib.Path, named: Named = Named()) -> Encoder:
  """Reads an encoder that `to_bytes` made, or one of torchvision or timm.

  Args:
    path: the file.
    named: what the user says of a file that has no record of ours.

  Raises:
    BadInput: the file is missing, damaged, or of another network.
  """
  arrays, record = read(path)
  if record is not None and named != Named():
    raise BadInput(f'{path} says its network and its images itself: leave out '
                   '--network, --image_size and --normalise')
  if record is None:
    record = named_network.about(path, arrays, named)
    arrays = named_network.backbone(arrays)
  nets = network(record.model, projector=record.projector)
  variables = weights(path, arrays, nets, record.shape)
  if not record.features:
    images = jnp.zeros((1, *record.shape), jnp.uint8)
    features = jax.eval_shape(lambda: embedded(
        images, variables, module=nets.encoder, projector=False))
    record = record._replace(features=features.shape[-1])
  return Encoder(nets.encoder, variables, record)


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], About | None]:
  """Reads the arrays of a safetensors file, and our record if it has one.

  Arrays of float16 and bfloat16 are converted to float32.

  Raises:
    BadInput: the file is missing, damaged, or of another kind.
  """
  if path.suffix in torch_names.PICKLES:
    raise BadInput(f'{path} is no .safetensors file: {torch_names.CONVERT}')
  if path.suffix in ('.onnx', '.stablehlo'):
    raise BadInput(f'{path} is for other programs: give the run, or export it '
                   'as .safetensors')
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      metadata: dict[str, str] = file.metadata() or {}
      arrays = {name: _array(path, file, name) for name in file.keys()}
  except FileNotFoundError as error:
    raise BadInput(f'there is no file {path}') from error
  except (OSError, TypeError, safetensors.SafetensorError) as error:
    raise BadInput(f'{path} is not a readable safetensors file ({error}): copy '
                   'it here again') from error
  record = metadata.get(_OURS)
  return arrays, record and about_lib.from_json(record, str(path)) or None


def _array(path: pathlib.Path, file: Any, name: str) -> np.ndarray:
  """Reads an array; numbers of 16 bits become float32."""
  dtype = file.get_slice(name).get_dtype()
  if dtype not in _DTYPES:
    raise BadInput(f'{path} has {name} as {dtype}, which is not read: save it '
                   'as float32')
  array: np.ndarray = file.get_tensor(name)
  return array.astype(np.float32) if dtype in ('F16', 'BF16') else array


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
