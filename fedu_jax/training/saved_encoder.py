"""Loads the encoder of a run, without its training data, or of a file."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from fedu_jax.core.state import Variables
from fedu_jax.data import image_files
from fedu_jax.data.dataset import Dataset
from fedu_jax.data.image_folders import DEFAULT_SIZE
from fedu_jax.encoders import about as about_lib
from fedu_jax.encoders import weights_file
from fedu_jax.encoders.about import About
from fedu_jax.encoders.encoder import embedded
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.encoders.named_network import Named
from fedu_jax.models import networks
from fedu_jax.runtime import json_files
from fedu_jax.runtime import paths
from fedu_jax.runtime import prng
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import data_record
from fedu_jax.training import finished_run
from fedu_jax.training import prepare
from fedu_jax.training import start_weights
from fedu_jax.training.config import binding
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_dict
from fedu_jax.training.config.config_dict import Config


def load(workdir_or_file: str | pathlib.Path, *, encoder: str = 'federation',
         projector: bool = False, named: Named = Named()) -> Encoder:
  """Loads an encoder, to call on images.

  The images of the run are not needed.

  Args:
    workdir_or_file: the folder of a run, or a file that `fedu_jax.export`
      wrote, or one with weights of torchvision or timm.
    encoder: of a run: 'federation', 'untrained', or 'alone0' and so on.
    projector: of a run: whether features are the projector's output, and not
      those below it. A file has one of them.
    named: of a file of torchvision or timm: its network.

  Returns:
    The encoder.

  Raises:
    BadInput: there is no such encoder, or it is damaged.
  """
  path = paths.workdir(str(workdir_or_file), 'the workdir or file')
  if path.suffix == '.safetensors' or path.is_file():
    return _of_file(path, encoder, projector, named)
  if named != Named():
    raise BadInput(f'the run in {path} says its network itself: leave out '
                   '--network, --image_size and --normalise')
  return of_run(path, encoder=encoder, projector=projector)


def _of_file(path: pathlib.Path, encoder: str, projector: bool,
             named: Named) -> Encoder:
  found = weights_file.load(path, named)
  if projector and not found.about.projector:
    raise BadInput(f'{path} is without a projector: leave out --projector, or '
                   'export with it')
  if encoder not in ('federation', found.about.encoder):
    raise BadInput(f'{path} holds the encoder {found.about.encoder}, not '
                   f'{encoder}')
  return found


@prng.fixed()
def of_run(folder: pathlib.Path, *, encoder: str = 'federation',
           projector: bool = False, data_dir: str = '', source: str = '',
           licence: str = '', console: Console | None = None) -> Encoder:
  """Loads an encoder of a run from its newest sound checkpoint.

  It computes in float32, though the run may have had model.dtype=bfloat16.

  Args:
    folder: the workdir of the run.
    encoder: 'federation', 'untrained', or 'alone0' and so on.
    projector: whether features are the projector's output.
    data_dir: the folder of TFDS's data sets; it matters only for a run of an
      earlier version, which did not record the shape of its images.
    source: where the run's data is now, if it was moved; as `data_dir`.
    licence: the licence of the weights; '' if it is not stated.
    console: the console for lines on damaged checkpoints; None for none.

  Raises:
    BadInput: there is no such checkpoint, or none that is sound.
  """
  finished_run.check_name(encoder)
  console = console or Console(quiet=True)
  config = finished_run.config_of(folder, data_dir, source)
  shape, dtype = _images_of(config, folder)
  rounds = finished_run.rounds_of(folder, encoder)
  wide = config_dict.changed(config, **{'model.dtype': 'float32'})
  nets = binding.bind(wide, 'model')()
  if encoder == 'untrained':
    blank = Dataset(np.zeros((1, *shape), np.uint8))
    variables = prepare.networks_of(
        wide, blank, start_weights.read(config, folder))[1].encoder
  else:
    like = jax.eval_shape(lambda: networks.init_online(
        nets, jax.random.key(0), jnp.zeros((2, *shape))))
    variables = finished_run.saved_network(
        folder, encoder, like, console).encoder
  about = _about(wide, nets, variables, shape=shape, dtype=dtype,
                 encoder=encoder, rounds=rounds, projector=projector)
  return Encoder(nets.encoder, variables, about._replace(
      licence=licence or about.licence))


def _images_of(config: Config,
               folder: pathlib.Path) -> tuple[tuple[int, int, int], str]:
  """The shape and dtype of a run's images, by its records if they say it."""
  if found := data_record.pixels_of(folder):
    return found
  if config.data.source.startswith('folder:'):
    size = config.data.image_size or DEFAULT_SIZE
    return (size, size, 3), 'uint8'
  try:
    images = prepare.data_of(config, lazy=True).train_images
  except BadInput as error:
    raise BadInput(
        f'{folder} is a run of an earlier version, which did not record the '
        f'size of its images, and they cannot be read ({error}): name their '
        'place with --source or --data_dir') from error
  height, width, channels = images.shape[1:]
  return (height, width, channels), str(images.dtype)


def _about(config: Config, nets: networks.Nets, variables: Variables, *,
           shape: tuple[int, int, int], dtype: str, encoder: str, rounds: int,
           projector: bool) -> About:
  """Makes the record of an encoder of a run."""
  features = jax.eval_shape(
      lambda: embedded(jnp.zeros((1, *shape), jnp.uint8), variables,
                       module=nets.encoder, projector=projector)).shape[-1]
  flat = {name: json_files.plain(value)
          for name, value in checks.flatten(config).items()
          if name not in checks.PLACES
          # The fields of a source of one's own may name places too.
          and (name in checks.FIELDS or not name.startswith('data.'))}
  return About(
      size=shape[:2], channels=shape[2], dtype=dtype, features=features,
      projector=projector, reading={
          name: config.data[name] for name in image_files.How._fields
          if name in config.data},
      model=json_files.plain(dict(config.model)), encoder=encoder,
      rounds=rounds, config=about_lib.without_paths(flat))
