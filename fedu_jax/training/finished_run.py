"""Reads a run's folder: its config, its rounds and its networks."""

import contextlib
import json
import pathlib
import re
from typing import Any

from flax import serialization
from rich.console import Console

from fedu_jax.core.state import Online
from fedu_jax.data import sources
from fedu_jax.evaluation.encoder_scores import Scorer
from fedu_jax.runtime import prng
from fedu_jax.runtime import terminal
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import data_record
from fedu_jax.training import prepare
from fedu_jax.training import start_weights
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_dict
from fedu_jax.training.config.config_dict import Config


def config_of(folder: pathlib.Path, data_dir: str = '',
              source: str = '') -> Config:
  """Reads the config of the run in a folder.

  Args:
    folder: the workdir of the run.
    data_dir: the folder of TFDS's data sets; runs do not record it.
    source: where the run's data is now; '' for where it was.

  Raises:
    BadInput: the folder has no config, or one that this version cannot read.
  """
  path = folder / 'config.json'
  try:
    flat = checks.complete(json.loads(path.read_text()))
    if source:
      flat['data.source'] = source
    config = config_dict.from_flat(
        flat | checks.PLACES | {'data.dir': data_dir})
  except (OSError, ValueError, TypeError, AttributeError) as error:
    # The file is missing, is no JSON, or is no config.
    raise BadInput(f'{folder} holds no run ({error}): give the --workdir of '
                   'one that has started') from error
  try:
    checks.check(config)
  except BadInput as error:
    if not source:
      raise
    raise BadInput(f'--source={source} does not fit the run in {folder}: name '
                   'the place where its images are now') from error
  return config


def is_deterministic(folder: pathlib.Path) -> bool:
  """Whether the run in a folder has `deterministic` set; False if unknown."""
  try:
    return bool(json.loads((folder / 'config.json').read_text()).get(
        'deterministic'))
  except (OSError, ValueError, AttributeError):
    return False


def check_name(encoder: str) -> None:
  """Raises BadInput if a text is not the name of an encoder of a run."""
  if not re.fullmatch('federation|untrained|alone[0-9]{1,6}', encoder):
    raise BadInput(f'--encoder is {encoder!r}: choose federation, untrained '
                   'or, if clients were trained alone too, alone0')


def rounds_of(folder: pathlib.Path, encoder: str) -> int:
  """Returns the number of rounds after which a network was last saved.

  Args:
    folder: the workdir of the run.
    encoder: 'federation', 'untrained', or 'alone0' and so on.

  Raises:
    BadInput: there is no such checkpoint, or none that is sound.
  """
  if encoder == 'untrained':
    return 0
  with contextlib.closing(
      Checkpoints(_saved_in(folder, encoder), keep=1)) as saved:
    return saved.latest() or 0


def _saved_in(folder: pathlib.Path, encoder: str) -> pathlib.Path:
  """The folder of a network's checkpoints."""
  where = folder if encoder == 'federation' else folder / encoder
  saved = where / 'checkpoints'
  if not saved.is_dir():
    raise BadInput(f'{where} has no checkpoints: choose federation, untrained '
                   'or, if clients were trained alone too, alone0')
  return saved


@prng.fixed()
def restore(config: Config, folder: pathlib.Path,
            encoder: str, console: Console) -> tuple[Scorer, Online]:
  """Loads a network of a run from its newest sound checkpoint.

  Args:
    config: the config of the run, as `config_of` returns it.
    folder: the workdir of the run.
    encoder: 'federation', 'untrained', or 'alone0' and so on.
    console: the console for lines on damaged checkpoints.

  Returns:
    The scorer of the network, and the network.

  Raises:
    BadInput: there is no such checkpoint, none that is sound, or the data is
      not what the run was trained on.
  """
  try:
    data = prepare.data_of(config, console=console)
  except BadInput as error:
    raise BadInput(f'{error}; or, if the data of {folder} was moved, name its '
                   'place with --source or --data_dir') from error
  _check_data(config, folder, data)
  nets, online = prepare.networks_of(config, data,
                                     start_weights.read(config, folder))
  scorer = prepare.scorer_of(config, nets, data)
  if encoder != 'untrained':
    online = saved_network(folder, encoder, online, console)
  return scorer, online


def saved_network(folder: pathlib.Path, encoder: str, like: Online,
                  console: Console) -> Online:
  """Reads a network of a run from its newest sound checkpoint.

  Args:
    folder: the workdir of the run.
    encoder: 'federation', or 'alone0' and so on.
    like: a network of the same structure; arrays or their shapes.
    console: the console for lines on damaged checkpoints.

  Raises:
    BadInput: there is no such checkpoint, none that is sound, or one of another
      network.
  """
  where = _saved_in(folder, encoder)
  with contextlib.closing(Checkpoints(where, keep=1)) as saved:
    try:
      state: Any = saved.restore_plain('server', 'online')
    except KeyError:
      state = {}  # another state; said below
  if state is None:
    raise BadInput(f'{where} is empty: the run saved nothing yet')
  for step, wrong in saved.damaged.items():
    terminal.say(console, f'checkpoint {step} is damaged ({wrong}): reading '
                 f'that of round {saved.latest()}')
  try:
    return serialization.from_state_dict(like, state['server']['online'])
  except (KeyError, ValueError) as error:
    raise BadInput(f'{where} holds another network than the run\'s '
                   f'config.json tells of ({str(error).splitlines()[0]}): '
                   'put that file back') from error


def _check_data(config: Config, folder: pathlib.Path,
                data: sources.Dataset) -> None:
  """Raises BadInput if the data is not what the run was trained on."""
  try:
    parts = prepare.parts_of(config, data)
  except BadInput as error:  # it was no error when the run began
    raise BadInput(f'the data are no longer those that {folder} began with: '
                   f'{error}') from error
  data_record.check(folder, data, parts, data_record.digests(data, parts),
                    name='--source or --data_dir')
