"""A run's folder with a network that nobody trained, made without training."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from configs import smoke
from fedu_jax.core.state import Online
from fedu_jax.models import networks
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training.config import binding
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_dict

SIZE = 16


def make(folder, *, rounds=3, records=True, **changes):
  """Writes a config, a checkpoint and the records of the images' shape.

  Args:
    folder: the workdir, which does not exist yet.
    rounds: the rounds of the checkpoint.
    records: whether images.json says the shape of images.
    **changes: fields of the config, by names with __ for dots.

  Returns:
    The folder.
  """
  config = config_dict.changed(smoke.get_config(), **{
      'data.source': 'folder:/no/such/place', 'data.image_size': SIZE,
      'partition.name': 'natural'} | {
          name.replace('__', '.'): x for name, x in changes.items()})
  flat = checks.flatten(config)
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(
      {name: x for name, x in flat.items() if name not in checks.PLACES}))
  channels = config.data.get('channels', 3)
  if records:
    (folder / 'images.json').write_text(json.dumps({
        'clients': [], 'dtype': 'uint8',
        'shape': [config.data.image_size or SIZE] * 2 + [channels]}))
  saved = Checkpoints(folder / 'checkpoints', keep=1)
  saved.save(rounds, {'server': {'online': network(config, channels)}})
  saved.close()
  return folder


def network(config, channels=3) -> Online:
  """Draws a network whose statistics differ from channel to channel."""
  nets = binding.bind(config, 'model')()
  online = networks.init_online(nets, jax.random.key(5), jnp.zeros(
      (2, SIZE, SIZE, channels)))
  draw = np.random.RandomState(0)
  return jax.tree.map(lambda x: x if x.ndim > 1 else jnp.asarray(
      x + draw.uniform(0, 0.5, x.shape), x.dtype), online)
