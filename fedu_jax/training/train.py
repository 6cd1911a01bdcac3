"""From a config to a trained federation and its scores.

Reads the data and partitions it, runs the rounds, scores, and reports.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from rich.console import Console

from fedu_jax.core.state import Online
from fedu_jax.evaluation.encoder_scores import best, Scorer
from fedu_jax.evaluation import score_tables
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput, Unsaved
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import multihost
from fedu_jax.runtime import prng
from fedu_jax.runtime import terminal
from fedu_jax.training.config import build
from fedu_jax.training.config import registry
from fedu_jax.training import config_changes
from fedu_jax.training import data_record
from fedu_jax.training.engine import placement
from fedu_jax.training.engine.recipe import Recipe
from fedu_jax.training import preflight
from fedu_jax.training import prepare
from fedu_jax.training import round_loop
from fedu_jax.training import workdir_lock


class Trained(NamedTuple):
  """A run's networks after its rounds, and what scores them."""
  scorer: Scorer | None  # None where the data has no labelled test images
  untrained: Online
  federation: Online
  alone: list[Online]  # of clients that trained by themselves
  speed: dict[str, float]
  unsaved: str  # what could not be written in the end; '' if all was
  files: dict[str, Any] | None  # what was read of a folder, in numbers

  def network(self, encoder: str) -> Online:
    """By its name: 'federation', 'untrained', or 'alone0' and so on."""
    if encoder.startswith('alone'):
      return self.alone[int(encoder.removeprefix('alone'))]
    return getattr(self, encoder)


def train(config: ml_collections.ConfigDict, workdir: str, *,
          console: Console, extend: bool = False) -> Trained:
  """Runs a config's rounds in a folder, from where an earlier start left off.

  On several hosts, all call it for a folder that all can reach, and the first
  writes what is no checkpoint and holds what scores.

  Args:
    config: see configs/cifar10.py.
    workdir: the folder of this run; made if absent.
    console: where to print.
    extend: let a run that is there go on to more rounds than it had.

  Raises:
    BadInput: anything about the config, the data or the folder is wrong.
    Interrupted: a signal came, and what is done is saved.
    Unsaved: a signal came, and not all could be saved.
  """
  registry.check(config)  # that there is a seed, too
  return train_seeds(config, [config.seed], [workdir], consoles=[console],
                     extend=extend)[0]


# What can be changed in the same folder, and what asks for another.
_CHANGE = ('what is saved stays, and a run goes on from it: start it again '
           'with a lower config.clients_per_device, more devices, or other '
           'programs ended; or choose a smaller config.batch_size or '
           'config.model and another --workdir')


@host_memory.watched(_CHANGE)
@prng.fixed()
def train_seeds(config: ml_collections.ConfigDict, seeds: Sequence[int],
                workdirs: Sequence[str], *, consoles: Sequence[Console],
                holds: contextlib.ExitStack | None = None,
                extend: bool = False) -> list[Trained]:
  """Runs a config for several seeds as one program, where shapes agree.

  Each seed's folder is as `train` leaves it, and either may go on from it.

  Args:
    config: of all of them, but for the seed.
    seeds: one a run.
    workdirs: the folders of the runs.
    consoles: where to print of each.
    holds: keeps the folders from other processes until it is closed; None,
      until this returns.
    extend: as `train`.

  Raises:
    BadInput, Interrupted, Unsaved: as `train`.
  """
  if holds is None:
    with contextlib.ExitStack() as own_holds:
      return train_seeds(config, seeds, workdirs, consoles=consoles,
                         holds=own_holds, extend=extend)
  registry.check(config)
  if multihost.several() and config.evaluation.alone:
    raise BadInput(f'config.evaluation.alone is {config.evaluation.alone}, '
                   'which is for one host: set it to 0')
  configs = [_changed(config, seed=seed) for seed in seeds]
  folders = [workdir_lock.claim(pathlib.Path(workdir), own, extend=extend)
             for workdir, own in zip(workdirs, configs)]
  data = prepare.data_of(config, lazy=multihost.several(), console=consoles[0])
  examples = prepare.examples_of(config, data)
  parts = [prepare.parts_of(own, data) for own in configs]
  drawn = [prepare.networks_of(own, data) for own in configs]
  nets, online = drawn[0]
  recipe = _as_begun(build.recipe(config), folders)
  where = placement.choose(recipe, online, data.train_images, parts[0],
                           num_members=len(seeds))
  whose = where.layout.hosts() if multihost.several() else []
  digests = [data_record.digests(data, mine, whose) for mine in parts]
  for folder, mine, found in zip(folders, parts, digests):
    data_record.check(folder, data, mine, found, name='--config.data.source')
  for mine, console in zip(parts, consoles):
    if multihost.first():
      data_record.show(data, mine, console)
  # Refuses what cannot be before a folder is touched.
  compiling = preflight.check(recipe, where, online, data.train_images,
                              parts, folders)
  multihost.barrier('all folders are claimed')
  members = []
  for own, folder, mine, images, (_, online), console in zip(
      configs, folders, parts, digests, drawn, consoles):
    if multihost.first():
      for line in holds.enter_context(
          workdir_lock.held(folder, own, extend=extend)):
        terminal.say(console, line)
      if line := data_record.damaged(folder):
        terminal.say(console, line)
      data_record.write(folder, data, mine, images)  # tried again in the end
    scorer = (prepare.scorer_if_labelled(own, nets, data) if multihost.first()
              else None)
    members.append(prepare.Member(
        'federation', folder, mine, online, own.seed, scorer, console))
  multihost.barrier('all folders are written')

  ended = round_loop.federate(members, recipe=recipe, where=where,
                              examples=examples, compiling=compiling)
  # A client alone has nobody to lose an upload to.
  by_itself = dataclasses.replace(build.recipe(config), dropout=0.0,
                                  stragglers=0.0)
  alone = []
  for k in range(config.evaluation.alone):
    them = [m._replace(name=f'client {k} alone', folder=m.folder / f'alone{k}',
                       parts=[m.parts[k]]) for m in members]
    its = _as_begun(by_itself, [m.folder for m in them])
    alone.append(round_loop.federate(
        them, recipe=its, examples=examples, where=placement.choose(
            its, them[0].online, data.train_images, them[0].parts,
            num_members=len(them))))
  trained = []
  for i, member in enumerate(members):
    every = [ended[i], *(own[i] for own in alone)]
    unsaved = [own.unsaved for own in every]
    if multihost.first():
      unsaved += data_record.write(member.folder, data, member.parts,
                                   digests[i])
    trained.append(Trained(
        member.scorer, member.online, ended[i].online,
        [own[i].online for own in alone], ended[i].speed, _joined(unsaved),
        data.files and data.files.summary()))
  return trained


def _joined(unsaved: list[str]) -> str:
  return '; '.join(filter(None, unsaved))


def _as_begun(recipe: Recipe, folders: Sequence[pathlib.Path]) -> Recipe:
  """Makes of a store that is `auto` what it was when these runs began."""
  return dataclasses.replace(recipe, store='disk') if any(
      map(workdir_lock.on_disk, folders)) else recipe


def _changed(config: ml_collections.ConfigDict,
             **changes: Any) -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(config.to_dict())
  config.update_from_flattened_dict(changes)
  return config


@host_memory.watched('the rounds that are saved stay, and their scores are '
                     'computed when it is started again: end other programs, '
                     'or choose fewer images')
def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str, *,
                       console: Console | None = None,
                       extend: bool = False) -> dict[str, Any]:
  """Trains as `train` does, and scores what came of it.

  Returns:
    The summary that is also written to `summary.json`; of several hosts, the
    first's has scores.

  Raises:
    BadInput, Interrupted: as `train`.
    Unsaved: the end could not be saved; it has been scored all the same.
  """
  with contextlib.ExitStack() as holds:
    shown = console or terminal.console(quiet=not multihost.first())
    return _train_and_evaluate(config, workdir, holds, shown, extend)


@prng.fixed()
def _train_and_evaluate(config: ml_collections.ConfigDict, workdir: str,
                        holds: contextlib.ExitStack,
                        console: Console, extend: bool) -> dict[str, Any]:
  began = time.perf_counter()
  registry.check(config)  # that there is a seed, too
  trained, = train_seeds(config, [config.seed], [workdir], consoles=[console],
                         holds=holds, extend=extend)
  scorer, alone, scores = trained.scorer, trained.alone, {}
  if scorer:
    scores['untrained'] = best([scorer.all(online) for online in (
        trained.untrained, scorer.fitted(trained.untrained))])
    for k, own in enumerate(alone):
      scores[f'client {k} alone'] = scorer.all(own)
    if len(alone) > 1:
      scores[f'mean of {len(alone)} alone'] = {
          name: float(np.mean([scores[f'client {k} alone'][name]
                               for k in range(len(alone))]))
          for name in scores['client 0 alone']}
    scores['federation'] = scorer.all(trained.federation)
    console.print(score_tables.by_encoder(scores))
    if unsound := score_tables.unsound_line(scores):
      terminal.say(console, unsound)
  else:
    console.print('the data has no labelled test images: nothing to score')
  summary = _summary(config, scores, trained.speed,
                     time.perf_counter() - began)
  if trained.files:
    summary['files'] = trained.files
  if extended := config_changes.extensions(pathlib.Path(workdir)):
    summary['extensions'] = extended
  unsaved = [trained.unsaved]
  if multihost.first():
    unsaved.append(data_record.write_report(
        pathlib.Path(workdir) / 'summary.json', summary))
  if wrong := _joined(unsaved):
    raise Unsaved(f'{wrong}: {durable_files.advice(wrong)}, and start again to '
                  'go on from what is saved')
  return summary


def _summary(config: ml_collections.ConfigDict,
             scores: dict[str, dict[str, float]],
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
      'jax': jax.__version__, 'config': registry.flatten(config)}
