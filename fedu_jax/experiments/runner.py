"""Runs the arms of experiments one after the other, and keeps finished runs.

A run is stored in <workdir>/runs/<hash of the config>-seed<n>. So experiments
with a common arm share its runs. An unfinished run resumes from its last
checkpoint. Several processes may work on one queue, or on several queues in one
workdir.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import functools
import itertools
import json
import pathlib
import statistics
from typing import Any

import ml_collections
from rich.console import Console

from fedu_jax.data import sources
from fedu_jax.evaluation import protocols
from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import progress as bars
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput, Unsaved
from fedu_jax.runtime import terminal
from fedu_jax.training.config import registry
from fedu_jax.training import data_record
from fedu_jax.training import score_run
from fedu_jax.training import train


def run(several: Mapping[str, plans.Plan], workdir: pathlib.Path, *,
        seeds: int, together: int = 1, data_dir: str = '', console: Console
        ) -> Iterator[tuple[str, list[plans.Result]]]:
  """Trains and scores all arms of some experiments for all seeds.

  Args:
    several: the experiments, by name.
    workdir: the folder that runs are kept in.
    seeds: the number of seeds: 0, 1, ...
    together: the number of seeds of an arm that train as one vmapped program.
    data_dir: the folder of data sets.
    console: the console for the progress bar and a line for each run.

  Yields:
    The name of each experiment as soon as it is complete, and a result for each
    arm, in the plan's order.

  Raises:
    BadInput, Interrupted, Unsaved: a run failed or was interrupted; finished
      runs stay.
  """
  cells = {(name, place, seed): bars.Cell(
      arm, plan.asked_of(arm), arm.folder(seed, workdir / 'runs'))
           for name, plan in several.items()
           for place, arm in enumerate(plan.arms) for seed in range(seeds)}
  bar = bars.Bar(cells, console)
  if bar.to_do:
    _find_data(cells.values(), data_dir)
  totals = {name: seeds * len(plan.arms) for name, plan in several.items()}
  groups = {name: [_groups([(name, place, seed) in bar.to_do
                            for seed in range(seeds)], together)
                   for place in range(len(plan.arms))]
            for name, plan in several.items()}
  found: dict[str, dict[tuple[int, int], dict[str, float]]] = {
      name: {} for name in several}
  seen: dict[str, pathlib.Path] = {}
  with bar:
    for name, wait in _turns(list(several)):
      plan, done = several[name], found[name]
      if len(done) == totals[name]:
        continue
      for place, group in _seed_by_seed(groups[name]):
        if (group[0], place) in done:
          continue
        arm = plan.arms[place]
        bar.show(plan.title)
        scores = _ask(arm, group, asked=plan.asked_of(arm),
                      runs=workdir / 'runs', data_dir=data_dir, wait=wait)
        for seed, mine in zip(group, scores):
          _see_same_images(seen, arm, arm.folder(seed, workdir / 'runs'))
          done[seed, place] = mine
          console.print(f'seed {seed}  {arm.row}, {arm.column}: ' + ', '.join(
              f'{score} {value:.4f}' for score, value in mine.items()))
      if len(done) == totals[name]:
        yield name, [
            _result(arm, [done[seed, place] for seed in range(seeds)],
                    workdir / 'runs', data_dir)
            for place, arm in enumerate(plan.arms)]


def finished(plan: plans.Plan, runs: pathlib.Path,
             seeds: int) -> list[plans.Result]:
  """Returns the results of arms that have all scores; trains nothing.

  Args:
    plan: the experiment.
    runs: the folder of the runs' folders.
    seeds: the number of seeds of an arm.
  """
  results = []
  for arm in plan.arms:
    asked = plan.asked_of(arm)
    cells = [bars.Cell(arm, asked, arm.folder(seed, runs))
             for seed in range(seeds)]
    if all(cell.scored() for cell in cells):
      scores = [_ask(arm, [seed], asked=asked, runs=runs, data_dir='',
                     wait=True)[0] for seed in range(seeds)]
      results.append(_result(arm, scores, runs, ''))
  return results


def _see_same_images(seen: dict[str, pathlib.Path], arm: plans.Arm,
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
  own = {name: value for name, value in registry.flatten(
      arm.config).items() if name.startswith('data.')}
  key = json.dumps({name: own[name] for name in sorted(
      own.keys() - set(registry.PLACES) - {'data.max_examples'})})
  if (mine := data_record.known(folder)) is None:
    return  # a run of an earlier version
  first = seen.setdefault(key, folder)
  theirs = data_record.known(first) or mine
  if mine.get('test_images') != theirs.get('test_images'):
    raise BadInput(
        f'{folder} and {first} are runs of other images, though both of '
        f'{arm.config.data.source}: give other data a --workdir of their own, '
        'or remove the one of them that is not of this --data_dir')


def _turns(names: Sequence[str]) -> Iterator[tuple[str, bool]]:
  """The order in which experiments are visited, and whether to wait for runs.

  Another process may be working on some runs. Therefore earlier experiments are
  visited again after each one, and only the last visits wait.
  """
  for i in range(len(names)):
    yield from ((name, False) for name in names[:i + 1])
  yield from ((name, True) for name in names)


def _groups(to_do: Sequence[bool], together: int) -> list[list[int]]:
  """Groups the seeds of an arm that run as one program, if they are to do."""
  left = [seed for seed, missing in enumerate(to_do) if missing]
  return [[seed] for seed, missing in enumerate(to_do) if not missing] + [
      left[i:i + together] for i in range(0, len(left), together)]


def _seed_by_seed(groups: Sequence[Sequence[list[int]]]
                  ) -> Iterator[tuple[int, list[int]]]:
  """Orders the work so that an interrupted queue has complete tables.

  Args:
    groups: for each arm, the groups of seeds that `_groups` returns.

  Yields:
    The number of an arm, and a group of its seeds: the first group of each arm,
    then the second of each arm, and so on.
  """
  for turn in itertools.zip_longest(*groups):
    for place, group in enumerate(turn):
      if group is not None:
        yield place, group


def _find_data(cells: Iterable[bars.Cell], data_dir: str) -> None:
  """Imports the reader of the first data set, and looks for the others.

  So missing data of later arms shows before the first arm trains.

  Raises:
    BadInput: data are missing or cannot be read.
  """
  first, *later = dict.fromkeys(_sources(cells))
  sources.import_reader(first)
  for source in later:
    sources.load(source, data_dir=data_dir, lazy=True)


def _sources(cells: Iterable[bars.Cell]) -> Iterator[str]:
  """The sources that arms train on and transfer to, in the queue's order."""
  for cell in cells:
    yield cell.arm.config.data.source
    for _, protocol, choice in protocols.parse(cell.asked):
      if protocol.score is protocols.transfer:
        yield choice


def _result(arm: plans.Arm, scores: list[dict[str, float]], runs: pathlib.Path,
            data_dir: str) -> plans.Result:
  """Collects the results of an arm's seeds, with their rounds."""
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


def _ask(arm: plans.Arm, seeds: Sequence[int], *, asked: str,
         runs: pathlib.Path, data_dir: str, wait: bool
         ) -> list[dict[str, float]]:
  """Trains and scores a cell for some seeds, unless that is done.

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
    if not all([stack.enter_context(_hold(folder, wait=wait))
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
def _hold(folder: pathlib.Path, *, wait: bool) -> Iterator[bool]:
  """Locks a run, so that processes can share a queue; yields whether we do."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with durable_files.held(folder.with_suffix('.lock'), wait=wait) as ours:
    yield ours
