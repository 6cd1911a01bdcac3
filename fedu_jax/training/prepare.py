"""Prepares a run from its config: data, clients, networks and the scorer."""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from fedu_jax.core import trees
from fedu_jax.core.state import Labelled, Online, PyTree
from fedu_jax.data import reading_progress
from fedu_jax.data import sources
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.evaluation import label_free
from fedu_jax.evaluation.encoder_scores import Scorer
from fedu_jax.evaluation.encoder_scores import Settings
from fedu_jax.models import networks
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import multihost
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import start_weights
from fedu_jax.training import workdir_lock
from fedu_jax.training.config import binding
from fedu_jax.training.config import checks
from fedu_jax.training.config import compatibility
from fedu_jax.training.config import contracts
from fedu_jax.training.config.config_dict import Config
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.federation import Start
from fedu_jax.training.engine.recipe import Recipe

_LARGE = 2**14  # smaller layers fit every machine


class Member(NamedTuple):
  """One federation of a run, or of a seed if several seeds run together."""
  name: str
  folder: pathlib.Path
  parts: list[np.ndarray]  # for each client, the rows of the data that it owns
  online: Online  # the server's first network
  seed: int
  scorer: Scorer | None
  console: Console
  weights: start_weights.Weights | None = None  # of config.model.init_from

  @property
  def start(self) -> Start:
    """The part that the engine needs."""
    return Start(self.online, self.parts, self.seed)


def data_of(config: Config, *, lazy: bool = False,
            console: Console | None = None) -> sources.Dataset:
  """Reads the data that a config names.

  Args:
    config: the config of the run.
    lazy: whether images are read only when they are used.
    console: the console for the progress of reading, if any.
  """
  console = console or Console(quiet=True)
  with reading_progress.shown(console) as progress:
    return sources.load(
        config.data.source, data_dir=config.data.dir,
        image_size=config.data.image_size,
        max_examples=config.data.max_examples, lazy=lazy, fit=config.data.fit,
        depth=config.data.depth, colours=config.data.colours,
        channels=config.data.channels, keep_depth=config.data.keep_depth,
        leave_out=config.data.leave_out,
        client_depth=config.data.client_depth, test=config.data.test,
        window=config.data.window, progress=progress,
        say=functools.partial(terminal.say, console),
        choices=dict(config.data))


def parts_of(config: Config,
             data: sources.Dataset) -> list[np.ndarray]:
  """Partitions the data, and checks that every client can fill a batch."""
  natural = config.partition.name == 'natural'
  labels = data.owners if natural else data.train_labels
  if labels is None and config.partition.name == 'iid':
    labels = np.zeros(len(data.train_images), np.int32)
  if labels is None:
    raise BadInput(
        f'partition {config.partition.name} needs '
        f'{"owners" if natural else "labels"}, and {config.data.source} has '
        'none: set --config.partition.name='
        f'{"iid" if data.owners is None else "natural"}')
  parts = contracts.parts(
      binding.bind(config, 'partition')(
          labels, config.clients, np.random.RandomState(config.seed)),
      name=config.partition.name, num_clients=config.clients,
      num_examples=len(data.train_images))
  for i, part in enumerate(parts):
    if len(part) < config.batch_size:
      raise BadInput(
          f'client {i} has {len(part)} images, fewer than a batch of '
          f'{config.batch_size}: lower batch_size or clients, or partition '
          'more evenly')
  return parts


def networks_of(config: Config, data: sources.Dataset,
                start: start_weights.Weights | None = None
                ) -> tuple[networks.Nets, Online]:
  """Makes the networks' modules, and draws the server's first network.

  Args:
    config: the config of the run.
    data: its data; only the shape of images is used.
    start: the weights of config.model.init_from, as `start_weights.read`
      returns them.

  Raises:
    BadInput: they do not fit the memory, their outputs do not fit the learner,
      the weights are of another network, or a researcher's own network or
      divergence breaks its contract.
  """
  compatibility.sides(checks.flatten(config), data.train_images.shape[1])
  nets = binding.bind(config, 'model')()
  rng = jax.random.fold_in(jax.random.key(config.seed), round_program.INIT)
  images = jnp.zeros((2, *data.train_images.shape[1:]))
  if max(config.model.width * 64, config.model.hidden,
         config.model.features) > _LARGE:
    size = trees.num_bytes(jax.eval_shape(
        lambda: networks.init_online(nets, rng, images)))
    host_memory.refuse(size, 'a network of this config.model')
  online = contracts.online(nets, rng, images, name=config.model.name)
  contracts.divergence(binding.bind(config, 'divergence'),
                       online.encoder.params, name=config.divergence.name)
  _check_outputs(config, nets, online, data)
  if start:
    online = start_weights.given(start, online, config)
  return nets, online


def _check_outputs(config, nets, online, data) -> None:
  """Checks that the networks' outputs fit the learner."""
  labelled = binding.labelled(config) and data.train_labels is not None
  if not labelled and (not binding.method(config).equal_widths or min(
      config.model.projector_layers, config.model.predictor_layers)):
    return

  z, prediction = (x.shape[-1] for x in jax.eval_shape(
      lambda: networks.embeddings(nets, online, jnp.zeros(
          (1, *data.train_images.shape[1:])))))
  if labelled and prediction <= (most := int(data.train_labels.max())):
    raise BadInput(f'the classifier has {prediction} outputs, but labels go up '
                   f'to {most}: set config.model.features to {most + 1}')
  if not labelled and prediction != z:
    raise BadInput(f'the predictor puts out {prediction} features, and the '
                   f'encoder {z}, which {config.learner.name} compares: set '
                   f'config.model.features to {z}, or both layers to 0')


def as_begun(recipe: Recipe, folders: Sequence[pathlib.Path]) -> Recipe:
  """Sets the store to 'disk' if one of the runs in folders began with it."""
  return dataclasses.replace(recipe, store='disk') if any(
      map(workdir_lock.clients_on_disk, folders)) else recipe


def examples_of(config: Config,
                data: sources.Dataset) -> PyTree:
  """Returns what clients train on: images, or `Labelled` if labels are needed.

  Raises:
    BadInput: the learner needs labels, and the data has none.
  """
  if not binding.labelled(config):
    return data.train_images
  if data.train_labels is None:
    raise BadInput(f'learner {config.learner.name} needs labels, and '
                   f'{config.data.source} has none')
  return Labelled(data.train_images, data.train_labels)


def scorer_if_labelled(config: Config, nets: networks.Nets,
                       data: sources.Dataset) -> Scorer | None:
  """Makes the scorer of encoders; None if training or test labels are absent.
  """
  if data.test_labels is None or (
      data.train_labels is None and data.probe_labels is None):
    return None  # without reading an image
  return scorer_of(config, nets, data)


def sample_of(config: Config, nets: networks.Nets, data: sources.Dataset,
              parts: list[np.ndarray]) -> label_free.Sample:
  """Reads the images on which an encoder is measured without labels.

  Args:
    config: the config of the run.
    nets: the networks.
    data: the data.
    parts: the rows of each client's images.
  """
  chosen = label_free.rows(parts)
  ends = np.cumsum([0, *map(len, chosen)])
  scorer = scorer_of(config, nets, sources.Dataset(
      data.train_images[np.concatenate(chosen)]))
  return label_free.Sample(scorer, [
      np.arange(a, b) for a, b in zip(ends[:-1], ends[1:])])


def scorer_of(config: Config, nets: networks.Nets,
              data: sources.Dataset) -> Scorer:
  """Makes the scorer of encoders; arrays that the data lacks are empty.

  Its training images are those of data.test that train probes, if there are.
  """
  nothing = np.zeros(0, np.int32)
  settings = Settings(**{name: config.evaluation[name]
                         for name in Settings._fields})
  images, labels = data.train_images, data.train_labels
  if data.probe_images is not None:
    images, labels = data.probe_images, data.probe_labels
  test = data.test_images

  def readable(images: Images) -> Images:
    # On a single host, what is not read at once is a large cache on disk. Of
    # several, each would decode its images again for each score.
    return np.asarray(images) if multihost.several() else images
  return Scorer(
      nets, readable(images), nothing if labels is None else labels,
      np.zeros((0, *images.shape[1:]), images.dtype) if test is None
      else readable(test),
      nothing if data.test_labels is None else data.test_labels,
      settings, config.seed, dict(config.view), config.data.dir,
      classifies=binding.labelled(config) and data.probe_images is None)
