"""Runs an experiment's arms, one after the other; what is done is not redone.

Runs lie in <workdir>/runs/<hash of the config>-seed<n>, so that experiments
which share an arm share its runs. Each goes on from its last checkpoint.
"""

import json
import pathlib
import statistics
from typing import Any

import ml_collections
from rich.console import Console
from rich.progress import (
    BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn,
    TimeRemainingColumn)

from fedu_jax import protocols
from fedu_jax import train
from fedu_jax.experiments import plan as plans


def run(plan: plans.Plan, workdir: pathlib.Path, *, seeds: int,
        data_dir: str = '', console: Console) -> list[plans.Result]:
  """Trains and scores every arm for every seed.

  Args:
    plan: the experiment.
    workdir: where runs are kept, and found again.
    seeds: how many: 0, 1, ...
    data_dir: where data sets lie.
    console: for the progress bar over runs, and one line a run.

  Returns:
    One result an arm, in the plan's order.

  Raises:
    BadInput: a run cannot be done; what is done stays.
  """
  results = [plans.Result(arm, [], [], [], data_dir) for arm in plan.arms]
  progress = Progress(
      TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
      TextColumn('runs'), TimeElapsedColumn(), TextColumn('left'),
      TimeRemainingColumn(), console=console)
  total = len(plan.arms) * seeds
  task = progress.add_task(plan.title, total=total)
  with progress:
    # Seed by seed, so that a queue that is cut short has whole tables.
    for seed in range(seeds):
      for result in results:
        arm = result.arm
        folder = _one(arm.config, workdir / 'runs', seed, data_dir)
        scores = protocols.ask(
            str(folder), plan.protocols, encoder=arm.encoder,
            data_dir=data_dir, console=Console(quiet=True))
        rows = (folder / 'metrics.jsonl').read_text().splitlines()
        result.scores.append(scores)
        result.rounds.append([json.loads(row) for row in rows])
        result.folders.append(folder)
        progress.advance(task)
        console.print(f'seed {seed}  {arm.row}, {arm.column}: ' + ', '.join(
            f'{name} {value:.4f}' for name, value in scores.items()))
  return results


def _one(config: ml_collections.ConfigDict, runs: pathlib.Path, seed: int,
         data_dir: str) -> pathlib.Path:
  """Trains one run unless it is done; returns its folder."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.seed = seed
  config.data.dir = data_dir
  folder = runs / plans.key_of(config)
  if not (folder / 'summary.json').exists():
    with open(_log(folder), 'a', encoding='utf-8') as log:
      train.train_and_evaluate(
          config, str(folder), console=Console(file=log, width=100))
  return folder


def _log(folder: pathlib.Path) -> pathlib.Path:
  """Where a run's console output goes: beside its folder, which is the run's.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  return folder.with_suffix('.log')


def mean_and_spread(values: list[float]) -> tuple[float, float]:
  """The mean, and the standard deviation with n - 1; 0 for one value."""
  spread = statistics.stdev(values) if values[1:] else 0.0
  return statistics.fmean(values), spread


def as_json(results: list[plans.Result]) -> list[dict[str, Any]]:
  """The results as plain values: what `results.json` holds."""
  return [{'row': r.arm.row, 'column': r.arm.column, 'encoder': r.arm.encoder,
           'runs': [folder.name for folder in r.folders], 'scores': r.scores}
          for r in results]
