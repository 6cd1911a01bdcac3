"""From a config to a trained federation and its scores.

Reads the data and partitions it, runs the rounds, keeps checkpoints, scores,
and reports.
"""

import functools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from rich.console import Console

from fedu_jax import local
from fedu_jax import networks
from fedu_jax import program
from fedu_jax import report
from fedu_jax import runs
from fedu_jax import settings
from fedu_jax import sources
from fedu_jax import trees
from fedu_jax.checkpoint import Checkpoints
from fedu_jax.errors import BadInput
from fedu_jax.scores import Scorer
from fedu_jax.state import Array, Labelled, Metrics, Online, PyTree


class Trained(NamedTuple):
  """A run's networks after its rounds, and what scores them."""
  scorer: Scorer | None  # None where the data has no labelled test images
  untrained: Online
  federation: Online
  alone: list[Online]  # of clients that trained by themselves
  speed: dict[str, float]

  def network(self, encoder: str) -> Online:
    """By its name: 'federation', 'untrained', or 'alone0' and so on."""
    if encoder.startswith('alone'):
      return self.alone[int(encoder.removeprefix('alone'))]
    return getattr(self, encoder)


def train(config: ml_collections.ConfigDict, workdir: str, *,
          console: Console) -> Trained:
  """Runs a config's rounds in a folder, from where an earlier start left off.

  Args:
    config: see configs/cifar10.py.
    workdir: the folder of this run; made if absent.
    console: where to print.

  Raises:
    BadInput: anything about the config, the data or the folder is wrong.
  """
  settings.check(config)
  folder = runs.claim(pathlib.Path(workdir), config, write=False)
  data = runs.data_of(config)
  parts = runs.parts_of(config, data)
  runs.claim(folder, config, write=True)
  shown = data.owners if data.train_labels is None else data.train_labels
  if shown is not None:
    console.print(report.client_table(shown, parts, data.owner_names))
    report.write_json(folder / 'partition.json', [
        np.bincount(shown[part]) for part in parts])

  nets, online = runs.networks_of(config, data)
  scorer = runs.scorer_of(config, nets, data)
  rng = jax.random.key(config.seed)

  federate = functools.partial(
      _federate, config=config, nets=nets, online=online, rng=rng,
      data=data, scorer=scorer, console=console)
  federation, speed = federate(parts, folder, 'federation')
  alone = [
      federate([parts[k]], folder / f'alone{k}', f'client {k} alone')[0]
      for k in range(config.evaluation.alone)]
  return Trained(scorer, online, federation, alone, speed)


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str, *,
                       console: Console | None = None) -> dict[str, Any]:
  """Trains as `train` does, and scores what came of it.

  Returns:
    The summary that is also written to `summary.json`.

  Raises:
    BadInput: as `train`.
  """
  began = time.time()
  console = console or Console(highlight=False)
  trained = train(config, workdir, console=console)
  scorer, alone, scores = trained.scorer, trained.alone, {}
  if scorer:
    scores['untrained'] = scorer.untrained(trained.untrained)
    for k, own in enumerate(alone):
      scores[f'client {k} alone'] = scorer.all(own)
    if len(alone) > 1:
      scores[f'mean of {len(alone)} alone'] = {
          name: float(np.mean([scores[f'client {k} alone'][name]
                               for k in range(len(alone))]))
          for name in scores['client 0 alone']}
    scores['federation'] = scorer.all(trained.federation)
    console.print(report.score_table(scores))
  else:
    console.print('the data has no labelled test images: nothing to score')
  summary = _summary(config, scores, trained.speed, time.time() - began)
  report.write_json(pathlib.Path(workdir) / 'summary.json', summary)
  return summary


def _federate(parts: list[np.ndarray], folder: pathlib.Path, name: str, *,
              config: ml_collections.ConfigDict, nets: networks.Nets,
              online: Online, rng: Array, data: sources.Dataset,
              scorer: Scorer | None, console: Console
              ) -> tuple[Online, dict[str, float]]:
  """Runs all rounds over the given clients, or what is left of them."""
  examples: PyTree = data.train_images
  if runs.labelled(config):
    if data.train_labels is None:
      raise BadInput(f'learner {config.learner.name} needs labels, and '
                     f'{config.data.source} has none')
    examples = Labelled(data.train_images, data.train_labels)
  arrays = local.client_arrays(examples, parts)
  start = runs.Run(*program.init_state(
      config, nets, online, np.array([len(part) for part in parts]), rng,
      jnp.zeros((1, *data.train_images.shape[1:]))), rng)
  # Placed as a restored checkpoint is, or a resumed run would compile anew.
  start = jax.device_put(start, jax.devices()[0])
  checkpoints = Checkpoints(folder / 'checkpoints', keep=config.checkpoint.keep)
  run = checkpoints.restore(start) or start
  done = int(run.server.round)
  if done == config.rounds:
    console.print(f'{name}: all {done} rounds are done; evaluating')
  elif done:
    console.print(f'{name}: going on after round {done} of {config.rounds}')
  compile_seconds = 0.0
  with report.RoundReport(folder, console, name, done=done,
                          rounds=config.rounds) as reporter:
    if done < config.rounds:
      began = time.time()
      one_round = program.compile_round(
          config, nets, run.server, run.clients, arrays, rng)
      compile_seconds = time.time() - began
      console.print(f'{name}: compiled in {compile_seconds:.0f} s')
    while done < config.rounds:
      began = time.time()
      # A round does not wait for the host: what would cross raises.
      with jax.transfer_guard('disallow_explicit'):
        server, clients, metrics = one_round(
            run.server, run.clients, arrays, rng)
      metrics = jax.device_get(metrics)
      seconds = time.time() - began
      run, done = runs.Run(server, clients, rng), done + 1
      row = _row(done, metrics, seconds, config, online)
      if scorer and config.evaluation.every and (
          done % config.evaluation.every == 0 or done == config.rounds):
        row['knn_accuracy'] = scorer.knn(server.online.encoder)
      reporter.add(row)
      if done % config.checkpoint.every == 0 or done == config.rounds:
        checkpoints.save(done, run)
    checkpoints.close()
    seconds = sum(row['seconds'] for row in reporter.rows)
    images = sum(row['images'] for row in reporter.rows)
  return run.server.online, {
      'images_per_second': images / seconds if seconds else 0.0,
      'seconds': seconds, 'compile_seconds': compile_seconds}


def _row(done: int, metrics: Metrics, seconds: float,
         config: ml_collections.ConfigDict, online: Online) -> report.Row:
  """Sorts a round's metrics into what is the round's and what a client's."""
  per_client = dict(metrics)
  cohort = per_client.pop('cohort')
  next_cohort = per_client.pop('next_cohort')
  took = per_client.pop('global_predictor')
  images = int(per_client['steps'].sum()) * config.batch_size
  size = trees.num_bytes(online)
  return {
      'round': done, 'loss': float(np.mean(per_client['loss'])),
      'divergence_min': float(per_client['divergence'].min()),
      'divergence_max': float(per_client['divergence'].max()),
      'bytes_up': size * len(cohort), 'bytes_down': size * len(next_cohort),
      'images': images, 'seconds': seconds,
      'images_per_second': images / seconds, 'cohort': cohort,
      'next_cohort': next_cohort, 'global_predictor': took,
      'clients': per_client}


def _summary(config: ml_collections.ConfigDict, scores: dict[str, report.Row],
             speed: dict[str, float], wall: float) -> dict[str, Any]:
  def score(name, of):
    return scores.get(of, {}).get(name)
  return {
      'rounds': config.rounds, 'clients': config.clients,
      'knn_accuracy': score('knn', 'federation'),
      'knn_accuracy_untrained': score('knn', 'untrained'),
      'linear_accuracy': score('linear', 'federation'),
      'linear_accuracy_untrained': score('linear', 'untrained'),
      'scores': scores, **speed, 'wall_seconds': wall,
      'device': jax.devices()[0].device_kind,
      'jax': jax.__version__, 'config': settings.flatten(config)}
