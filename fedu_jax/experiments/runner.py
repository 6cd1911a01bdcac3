"""Runs the arms of experiments one after the other, and keeps finished runs.

A run is stored in <workdir>/runs/<hash of the config>-seed<n>. So experiments
with a common arm share its runs. An unfinished run resumes from its last
checkpoint. Several processes may work on one queue, or on several queues in one
workdir.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import itertools
import pathlib

from rich.console import Console

from fedu_jax.data import sources
from fedu_jax.evaluation import protocols
from fedu_jax.experiments import cell_runs
from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import progress as bars


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
        scores = cell_runs.ask(
            arm, group, asked=plan.asked_of(arm), runs=workdir / 'runs',
            data_dir=data_dir, wait=wait)
        for seed, mine in zip(group, scores):
          cell_runs.see_same_images(
              seen, arm, arm.folder(seed, workdir / 'runs'))
          done[seed, place] = mine
          console.print(f'seed {seed}  {arm.row}, {arm.column}: ' + ', '.join(
              f'{score} {value:.4f}' for score, value in mine.items()))
      if len(done) == totals[name]:
        yield name, [
            cell_runs.result(
                arm, [done[seed, place] for seed in range(seeds)],
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
      scores = [cell_runs.ask(
          arm, [seed], asked=asked, runs=runs, data_dir='', wait=True)[0]
                for seed in range(seeds)]
      results.append(cell_runs.result(arm, scores, runs, ''))
  return results


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
