"""Federations made from a config, as a run makes them, to be measured."""

import pathlib
import time
from typing import Any, NamedTuple

from configs import cifar10
from fedu_jax.data import sources
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training import prepare
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.config.config_dict import Config
from fedu_jax.training.engine import clients_on_device
from fedu_jax.training.engine import placement
from fedu_jax.training.engine.federation import Federation
from fedu_jax.training.engine.federation import Start


class Made(NamedTuple):
  """A federation, and where it is kept."""
  federation: Federation
  where: placement.Place


def config_of(data: pathlib.Path, fields: dict[str, Any]) -> Config:
  """Returns configs/cifar10.py on decoded images, with changed fields."""
  config = cifar10.get_config()
  config.data.source = f'npz:{data}'
  config.update_from_flattened_dict(fields)
  return checks.checked(config)


def wait_for(data: pathlib.Path, seconds: float) -> None:
  """Waits until the images are decoded.

  Raises:
    FileNotFoundError: they are not there in time.
  """
  until = time.time() + seconds
  while not data.exists():
    if time.time() > until:
      raise FileNotFoundError(f'{data}: the images were not decoded in time')
    time.sleep(0.2)


def make(config: Config, folder: pathlib.Path,
         data: sources.Dataset | None = None) -> Made:
  """Makes a federation with all clients on one device.

  Args:
    config: the config of the run.
    folder: a folder for its checkpoints; nothing is saved.
    data: its data; None to read what the config names.
  """
  data = data or prepare.data_of(config)
  parts = prepare.parts_of(config, data)
  online = prepare.networks_of(config, data)[1]
  recipe = build.recipe(config)
  where = placement.choose(recipe, online, data.train_images, parts,
                           num_members=1)
  return Made(clients_on_device.ClientsOnDevice(
      [Start(online, parts, config.seed)],
      [Checkpoints(folder / 'checkpoints', keep=1)], recipe=recipe,
      examples=prepare.examples_of(config, data), layout=where.layout), where)
