"""Trains and scores the runs of one arm, of which other processes may do some.

A run is locked while a process works on it. What is finished is read.
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import json
import pathlib
import statistics
from typing import Any

import ml_collections
from rich.console import Console

from fedu_jax.experiments import experiment as plans
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput, Unsaved
from fedu_jax.training import data_record
from fedu_jax.training import score_run
from fedu_jax.training import train
from fedu_jax.training.config import checks


def result(arm: plans.Arm, scores: list[dict[str, float]], runs: pathlib.Path,
           data_dir: str) -> plans.Result:
  """Collects the results of an arm's seeds, with their rounds.

  Args:
    arm: the arm.
    scores: for each seed, its scores by their names.
    runs: the folder of the runs' folders.
    data_dir: the folder of data sets.

  Raises:
    BadInput: the rounds of a run cannot be read.
  """
  folders = [arm.folder(seed, runs) for seed in range(len(scores))]
  return plans.Result(arm, scores, [_rows(folder / 'metrics.jsonl')
                                    for folder in folders], folders, data_dir)


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the rounds of a run."""
  try:
    return [json.loads(line) for line in path.read_text().splitlines()]
  except (OSError, ValueError) as error:
    raise BadInput(f'{path} is damaged ({error}): remove the folder '
                   f'{path.parent.name}, and the run is done again') from error


def ask(arm: plans.Arm, seeds: Sequence[int], *, asked: str,
        runs: pathlib.Path, data_dir: str, wait: bool
        ) -> list[dict[str, float]]:
  """Trains and scores a cell for some seeds, unless that is done.

  Args:
    arm: the arm.
    seeds: the seeds, which train as one program.
    asked: the protocols, as `fedu_jax.evaluate` takes them.
    runs: the folder of the runs' folders.
    data_dir: the folder of data sets.
    wait: whether to wait for another process that works on one of these runs.

  Returns:
    The scores; an empty list if another process works on one of these runs and
    `wait` is False.
  """
  folders = tuple(arm.folder(seed, runs) for seed in seeds)
  config = ml_collections.ConfigDict(arm.config.to_dict())
  config.data.dir = data_dir
  frozen = ml_collections.FrozenConfigDict(config)

  def load(i, encoder):
    trained = _train(frozen, tuple(seeds), folders)[i]
    if trained.scorer is None:
      raise BadInput(f'{config.data.source} has no labelled test images')
    return trained.scorer, trained.network(encoder)
  with contextlib.ExitStack() as stack:
    # In order, so that two processes never wait for each other.
    if not all([stack.enter_context(hold(folder, wait=wait))
                for folder in folders]):
      return []
    scores = [[score_run.ask(
        folder, asked, encoder=encoder, console=Console(quiet=True),
        trained=(rounds, functools.partial(load, i, encoder)))
               for encoder, rounds in arm.encoders()]
              for i, folder in enumerate(folders)]
  return [{name: statistics.fmean(own[name] for own in every)
           for name in every[0]} for every in scores]


@functools.lru_cache(maxsize=1)  # rows that share a run follow each other
def _train(config: ml_collections.FrozenConfigDict, seeds: tuple[int, ...],
           folders: tuple[pathlib.Path, ...]) -> list[train.Trained]:
  """Trains the remaining rounds; each run's log is next to its folder."""
  with contextlib.ExitStack() as stack:
    logs = [stack.enter_context(open(
        folder.with_suffix('.log'), 'a', encoding='utf-8'))
        for folder in folders]
    found = train.train_seeds(
        config, seeds, [str(folder) for folder in folders],
        consoles=[terminal.console(log, width=100) for log in logs])
  for folder, trained in zip(folders, found):
    if trained.unsaved:
      raise Unsaved(f'{folder}: {"; ".join(map(str, trained.unsaved))}: '
                    f'{trained.unsaved[0].advice}, and start again')
  return found


@contextlib.contextmanager
def hold(folder: pathlib.Path, *, wait: bool) -> Iterator[bool]:
  """Locks a run, so that processes can share a queue.

  Args:
    folder: the folder of the run; the lock file is next to it.
    wait: whether to wait until no other process has the lock.

  Yields:
    Whether we have the lock.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  with durable_files.held(folder.with_suffix('.lock'), wait=wait) as ours:
    yield ours


def see_same_images(seen: dict[str, pathlib.Path], arm: plans.Arm,
                    folder: pathlib.Path) -> None:
  """Checks that all runs of a data set in a table have the same images.

  Runs with equal configs may have read different images, from two folders
  --data_dir. Test images are compared, because they do not depend on seed and
  partition.

  Args:
    seen: one run of each data set; the first of a new data set is added.
    arm: the arm of the run.
    folder: the folder of the run.

  Raises:
    BadInput: an earlier run had other test images.
  """
  own = {name: value for name, value in checks.flatten(
      arm.config).items() if name.startswith('data.')}
  key = json.dumps({name: own[name] for name in sorted(
      own.keys() - set(checks.PLACES) - {'data.max_examples'})})
  if (mine := data_record.known(folder)) is None:
    return  # a run of an earlier version
  first = seen.setdefault(key, folder)
  theirs = data_record.known(first) or mine
  if mine.get('test_images') != theirs.get('test_images'):
    raise BadInput(
        f'{folder} and {first} are runs of other images, though both of '
        f'{arm.config.data.source}: give other data a --workdir of their own, '
        'or remove the one of them that is not of this --data_dir')
