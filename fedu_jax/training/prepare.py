"""A run: what it is made of, and what it left in its folder."""

import json
import pathlib
from typing import Any, NamedTuple

from flax import serialization
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from rich.console import Console

from fedu_jax.core.state import Array, Labelled, Online, PyTree, ServerState
from fedu_jax.core import trees
from fedu_jax.data import reading_progress
from fedu_jax.data import sources
from fedu_jax.evaluation.encoder_scores import Scorer, Settings
from fedu_jax.models import networks
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime.errors import BadInput
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import prng
from fedu_jax.runtime import terminal
from fedu_jax.training.config import contracts
from fedu_jax.training.config import registry
from fedu_jax.training import data_record
from fedu_jax.training.engine import round_program

_LARGE = 2**14  # units of a layer, below which networks fit anywhere


class Run(NamedTuple):
  """The whole state of a run: what a checkpoint holds."""
  server: ServerState
  clients: Any  # stacked [K, ...], or what stands for them: see `store`
  rng: Array  # the run's key


class Member(NamedTuple):
  """One federation: where several seeds run together, a seed's."""
  name: str
  folder: pathlib.Path
  parts: list[np.ndarray]  # for each client, the rows of the data that it owns
  online: Online  # what the server sends out first
  seed: int
  scorer: Scorer | None
  console: Console


def data_of(config: ml_collections.ConfigDict, *, lazy: bool = False,
            console: Console | None = None) -> sources.Dataset:
  """Reads the data that a config names.

  Args:
    config: the run's.
    lazy: whether images are read only when they are used.
    console: where to show how far the reading is; None: nowhere.
  """
  with reading_progress.shown(console or Console(quiet=True)) as progress:
    return sources.load(
        config.data.source, data_dir=config.data.dir,
        image_size=config.data.image_size,
        max_examples=config.data.max_examples, lazy=lazy, fit=config.data.fit,
        depth=config.data.depth, colours=config.data.colours,
        leave_out=config.data.leave_out, progress=progress,
        choices=dict(config.data))


def parts_of(config: ml_collections.ConfigDict,
             data: sources.Dataset) -> list[np.ndarray]:
  """Deals the examples out, and checks that every client can fill a batch."""
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
      registry.bind(config, 'partition')(
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


def networks_of(config: ml_collections.ConfigDict, data: sources.Dataset
                ) -> tuple[networks.Nets, Online]:
  """Makes the networks, and draws the one that the server sends out first.

  Raises:
    BadInput: they are larger than memory, or what they put out is not what the
      learner compares, or too little for its classes; or a network or a
      divergence of one's own does not keep to its contract.
  """
  nets = registry.bind(config, 'model')()
  rng = jax.random.fold_in(jax.random.key(config.seed), round_program.INIT)
  images = jnp.zeros((2, *data.train_images.shape[1:]))
  if max(config.model.width * 64, config.model.hidden,
         config.model.features) > _LARGE:
    size = trees.num_bytes(jax.eval_shape(
        lambda: networks.init_online(nets, rng, images)))
    host_memory.refuse(size, 'a network of this config.model')
  online = contracts.online(nets, rng, images, name=config.model.name)
  contracts.divergence(registry.bind(config, 'divergence'),
                       online.encoder.params, name=config.divergence.name)
  _check_outputs(config, nets, online, data)
  return nets, online


def _check_outputs(config, nets, online, data) -> None:
  """Whether heads without layers put out what the learner needs."""
  labelled = registry.labelled(config) and data.train_labels is not None
  if not labelled and (config.learner.name not in ('byol', 'simsiam') or min(
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


def examples_of(config: ml_collections.ConfigDict,
                data: sources.Dataset) -> PyTree:
  """What clients train on: images, or `Labelled` if the learner wants it.

  Raises:
    BadInput: the learner needs labels, and the data has none.
  """
  if not registry.labelled(config):
    return data.train_images
  if data.train_labels is None:
    raise BadInput(f'learner {config.learner.name} needs labels, and '
                   f'{config.data.source} has none')
  return Labelled(data.train_images, data.train_labels)


def scorer_of(config: ml_collections.ConfigDict, nets: networks.Nets,
              data: sources.Dataset) -> Scorer | None:
  """Makes what scores encoders; None if the data has no labelled test half."""
  if data.test_labels is None or data.train_labels is None:
    return None  # no image is read for it
  return _scorer(config, nets, data)


def _scorer(config, nets, data) -> Scorer:
  """The same; what of the data is absent is empty."""
  nothing = np.zeros(0, np.int32)
  settings = Settings(**{name: config.evaluation[name]
                         for name in Settings._fields})
  images, test = data.train_images, data.test_images
  return Scorer(
      nets, np.asarray(images),
      nothing if data.train_labels is None else data.train_labels,
      np.zeros((0, *images.shape[1:]), np.uint8) if test is None
      else np.asarray(test),
      nothing if data.test_labels is None else data.test_labels,
      settings, config.seed, dict(config.view), config.data.dir,
      classifies=registry.labelled(config))


def config_of(folder: pathlib.Path, data_dir: str = '', source: str = ''
              ) -> ml_collections.ConfigDict:
  """Reads the config of the run in a folder.

  Args:
    folder: the run's.
    data_dir: where its data lies, which is not kept with it.
    source: where its data is now; '' for where it was when the run went on.

  Raises:
    BadInput: there is none, or not one of this version.
  """
  path = folder / 'config.json'
  nested: dict[str, Any] = {}
  try:
    flat = registry.complete(json.loads(path.read_text()))
    if source:
      flat['data.source'] = source
    for name, value in (
        flat | registry.PLACES | {'data.dir': data_dir}).items():
      *sections, last = name.split('.')
      place = nested
      for section in sections:
        place = place.setdefault(section, {})
      place[last] = tuple(value) if isinstance(value, list) else value
  except (OSError, ValueError, TypeError, AttributeError) as error:
    # Absent, or something else than a config: the last two.
    raise BadInput(f'{folder} holds no run ({error}): give the --workdir of '
                   'one that has started') from error
  config = ml_collections.ConfigDict(nested)
  try:
    registry.check(config)
  except BadInput as error:
    if not source:
      raise
    raise BadInput(f'--source={source} does not fit the run in {folder}: name '
                   'the place where its images are now') from error
  return config


def rounds_of(folder: pathlib.Path, encoder: str) -> int:
  """How many rounds a network of a run was trained for, as far as it is saved.

  Args:
    folder: the run's.
    encoder: 'federation', 'untrained', or 'alone0' and so on.

  Raises:
    BadInput: there is no such checkpoint, or none that is sound.
  """
  if encoder == 'untrained':
    return 0
  saved = Checkpoints(_saved_in(folder, encoder), keep=1)
  saved.close()
  return saved.latest() or 0


def _saved_in(folder: pathlib.Path, encoder: str) -> pathlib.Path:
  where = folder if encoder == 'federation' else folder / encoder
  saved = where / 'checkpoints'
  if not saved.is_dir():
    raise BadInput(f'{where} has no checkpoints: choose federation, untrained '
                   'or, if clients were trained alone too, alone0')
  return saved


@prng.fixed()
def restore(config: ml_collections.ConfigDict, folder: pathlib.Path,
            encoder: str, console: Console) -> tuple[Scorer, Online]:
  """Loads a network of a run, and what scores it.

  Args:
    config: the run's, with the place of its data.
    folder: the run's.
    encoder: 'federation', 'untrained', or 'alone0' and so on.
    console: told of checkpoints that are damaged; the newest sound one counts.

  Raises:
    BadInput: there is no such checkpoint, none that is sound, or the data is
      not what the run was trained on.
  """
  where = None if encoder == 'untrained' else _saved_in(folder, encoder)
  try:
    data = data_of(config, console=console)
  except BadInput as error:
    raise BadInput(f'{error}; or, if the data of {folder} was moved, name its '
                   'place with --source or --data_dir') from error
  _check_data(config, folder, data)
  nets, online = networks_of(config, data)
  scorer = _scorer(config, nets, data)
  if where:
    saved = Checkpoints(where, keep=1)
    state: Any = saved.restore_plain()
    saved.close()
    if state is None:
      raise BadInput(f'{where} is empty: the run saved nothing yet')
    for step, wrong in saved.damaged.items():
      terminal.say(console, f'checkpoint {step} is damaged ({wrong}): scoring '
                 f'that of round {saved.latest()}')
    try:
      online = serialization.from_state_dict(online, state['server']['online'])
    except (KeyError, ValueError) as error:
      raise BadInput(f'{where} holds another network than the run\'s '
                     f'config.json tells of ({str(error).splitlines()[0]}): '
                     'put that file back') from error
  return scorer, online


def _check_data(config, folder, data) -> None:
  """Refuses to score a run on other data than its own."""
  try:
    parts = parts_of(config, data)
  except BadInput as error:  # which was no error when the run began
    raise BadInput(f'the data are no longer those that {folder} began with: '
                   f'{error}') from error
  data_record.check(folder, data, parts, data_record.digests(data, parts),
                    name='--source or --data_dir')
