"""The values of a config that may change when a run is resumed.

The place of the data may change; `data_record` compares its contents. More
rounds change the schedule of the learning rate, so they need --extend.
"""

import json
import pathlib
from typing import Any

import numpy as np

from fedu_jax.runtime import json_files
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import data_record
from fedu_jax.training import start_weights
from fedu_jax.training.config import build
from fedu_jax.training.config import checks

_EXTENSIONS = 'extensions.json'

# Fields that do not affect training.
_FREE = {'evaluation.every', 'evaluation.alone', 'checkpoint.keep'}
# Fields of scores. If one changes, the kept scores are removed.
_SCORING = {'evaluation.probe_epochs', 'evaluation.probe_batch_size',
            'evaluation.probe_learning_rate', 'evaluation.probe_standardise',
            'evaluation.labels_per_class', 'evaluation.few_draws',
            'evaluation.semi_hidden', 'evaluation.semi_epochs', 'data.test'}

Flat = dict[str, Any]  # a config as values by dotted names


def check(folder: pathlib.Path, before: Flat, after: Flat, *,
          extend: bool) -> None:
  """Checks that a run can be resumed with a config.

  `data_record.check` checks the images.

  Args:
    folder: the workdir of the run.
    before: the run's config, without places.
    after: the config that it shall go on with, without places.
    extend: whether it may get more rounds.

  Raises:
    BadInput: a value differs that must not.
  """
  names = checks.differing(before, after)
  free = _FREE | _SCORING | ({'checkpoint.every'} if done(folder) else set())
  if data_record.known(folder):
    free |= {name for name in names if name.startswith('data.')}
  if start_weights.recorded(folder) and after['model.init_from']:
    free.add('model.init_from')  # the file's digest is compared
  wrong = [name for name in names if name not in free]
  if wrong == ['rounds']:
    _check_rounds(folder, before, after, extend)
  elif wrong:
    hint = (', or put a link to the data at its old place: a version that kept '
            'no digests of images began this run'
            if wrong == ['data.source'] else '')
    raise BadInput(f'{folder} belongs to another config, which differs in '
                   f'{", ".join(checks.differences(before, after))}: choose '
                   f'another --workdir{hint}')


def _check_rounds(folder: pathlib.Path, before: Flat, after: Flat,
                  extend: bool) -> None:
  """Raises BadInput for fewer rounds, and for more without --extend."""
  old, new = before['rounds'], after['rounds']
  if new < old:
    raise BadInput(
        f'{folder} is a run of {old} rounds, and cannot become one of {new}: '
        f'its learning rates were those of a schedule over {old}; set '
        f'--config.rounds={old}, or choose another --workdir')
  if not extend:
    raise BadInput(
        f'{folder} is a run of {old} rounds, not {new}: to go on to round '
        f'{new} on purpose, add --extend; '
        f'{_jump(before, after, done(folder))}')


def clears_scores(before: Flat, after: Flat) -> bool:
  """Whether a change of the config makes a run's kept scores invalid."""
  return bool(_SCORING & set(checks.differing(before, after)))


def told(before: Flat, after: Flat) -> str:
  """Says which values are other than before; '' if none is."""
  return ', '.join(f'{name} is {after.get(name, "absent")} now, not '
                   f'{before.get(name, "absent")}'
                   for name in checks.differing(before, after))


def extend(folder: pathlib.Path, before: Flat, after: Flat) -> str:
  """Records that a run gets more rounds; returns a line on its schedule.

  Clients that train alone are extended too.

  Raises:
    OSError: the record cannot be written.
  """
  saved = done(folder)
  row = {'after_round': saved, 'from': before['rounds'], 'to': after['rounds'],
         'schedule': after['optimizer.schedule'],
         'learning_rate_before': _rate(before, max(saved - 1, 0)),
         'learning_rate_after': _rate(after, saved)}
  rows = extensions(folder)
  if row not in rows:
    json_files.write(folder / _EXTENSIONS, [*rows, row])
  return (f'extended from {before["rounds"]} to {after["rounds"]} rounds after '
          f'round {saved}: {_jump(before, after, saved)}')


def extensions(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the records of a run's extensions, oldest first."""
  try:
    found = json.loads((folder / _EXTENSIONS).read_text())
  except (OSError, ValueError):
    return []
  return found if isinstance(found, list) else []


def done(folder: pathlib.Path) -> int:
  """Returns the rounds of the newest checkpoint, damaged or not; 0 if none."""
  return max((int(path.name) for path in (folder / 'checkpoints').glob('*')
              if path.name.isdecimal()), default=0)


def _rate(flat: Flat, round_: int) -> float:
  """The learning rate of a round, counted from 0."""
  return float(np.asarray(build.learning_rate(
      flat['optimizer.learning_rate'], flat['optimizer.schedule'],
      flat['rounds'], round_)))


def _jump(before: Flat, after: Flat, saved: int) -> str:
  """Describes the change of the learning rate when a run is extended."""
  if after['optimizer.schedule'] == 'constant':
    return (f'the learning rate stays {_rate(after, saved):.4g}, by the '
            'schedule constant')
  last = (f'from {_rate(before, saved - 1):.4g} in round {saved} ' if saved
          else '')
  return (f'the learning rate goes {last}to {_rate(after, saved):.4g} in round '
          f'{saved + 1}, by the schedule {after["optimizer.schedule"]} over '
          f'{after["rounds"]} rounds in place of {before["rounds"]}')
