"""Trains a federation from a config, and scores it.

It reads and partitions the data, runs the rounds, scores, and reports.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

from rich.console import Console

from fedu_jax.core.state import Online, PyTree
from fedu_jax.data import sources
from fedu_jax.evaluation import label_free
from fedu_jax.evaluation import score_tables
from fedu_jax.evaluation.encoder_scores import Scorer
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import gpu_settings
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import json_files
from fedu_jax.runtime import multihost
from fedu_jax.runtime import prng
from fedu_jax.runtime import terminal
from fedu_jax.runtime.durable_files import Unwritten
from fedu_jax.runtime.errors import BadInput, Unsaved
from fedu_jax.training import config_changes
from fedu_jax.training import data_record
from fedu_jax.training import preflight
from fedu_jax.training import prepare
from fedu_jax.training import round_loop
from fedu_jax.training import run_summary
from fedu_jax.training import start_weights
from fedu_jax.training import workdir_lock
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_dict
from fedu_jax.training.config.config_dict import Config
from fedu_jax.training.engine import placement
from fedu_jax.training.engine.recipe import Recipe


class Trained(NamedTuple):
  """A run's networks after its rounds, and their scorer."""
  scorer: Scorer | None  # None if the data has no labelled test images
  sample: label_free.Sample | None  # without labels, on a single host
  untrained: Online
  federation: Online
  alone: list[Online]  # the networks of clients that trained alone
  speed: dict[str, float]
  unsaved: list[Unwritten]  # failures to write at the end
  files: dict[str, Any] | None  # counts of files, for a folder of images
  devices: dict[str, Any]  # the devices that trained, see `accelerators.record`

  def network(self, encoder: str) -> Online:
    """Returns 'federation', 'untrained', or 'alone0' and so on."""
    if encoder.startswith('alone'):
      return self.alone[int(encoder.removeprefix('alone'))]
    return getattr(self, encoder)


def train(config: Config, workdir: str, *,
          console: Console, extend: bool = False) -> Trained:
  """Runs a config's rounds in a folder, or resumes them.

  Several hosts all call it, with a folder that all can reach. All write
  checkpoints. Only the first host writes other files and has the scorer.

  Args:
    config: the config, see configs/cifar10.py.
    workdir: the folder of this run; created if absent.
    console: the console to print on.
    extend: whether an existing run may have more rounds than before.

  Raises:
    BadInput: the config, the data or the folder is wrong.
    Interrupted: a signal came, and all is saved.
    Unsaved: a signal came, and not all could be saved.
  """
  config = checks.checked(config)  # that there is a seed, too
  return train_seeds(config, [config.seed], [workdir], consoles=[console],
                     extend=extend)[0]


# Advice if memory runs out, first for the same folder, then for another one.
_CHANGE = ('what is saved stays, and a run goes on from it: start it again '
           'with a lower config.clients_per_device, more devices, or other '
           'programs ended; or choose a smaller config.batch_size or '
           'config.model and another --workdir')


@host_memory.watched(_CHANGE)
@prng.fixed()
def train_seeds(config: Config, seeds: Sequence[int],
                workdirs: Sequence[str], *, consoles: Sequence[Console],
                holds: contextlib.ExitStack | None = None,
                extend: bool = False) -> list[Trained]:
  """Runs a config for several seeds, as one program if shapes agree.

  Each seed's folder is the same as after `train`, and both can resume it.

  Args:
    config: the config of all seeds.
    seeds: a seed for each run.
    workdirs: the folder of each run.
    consoles: the console of each run.
    holds: keeps the folders locked until it is closed; None keeps them locked
      until this function returns.
    extend: as in `train`.

  Returns:
    The networks of each run.

  Raises:
    BadInput, Interrupted, Unsaved: as in `train`.
  """
  if holds is None:
    with contextlib.ExitStack() as own_holds:
      return train_seeds(config, seeds, workdirs, consoles=consoles,
                         holds=own_holds, extend=extend)
  config = checks.checked(config)
  if config.deterministic:
    gpu_settings.make_deterministic()
    terminal.say(consoles[0], gpu_settings.see_deterministic())
  if multihost.several() and config.evaluation.alone:
    raise BadInput(f'config.evaluation.alone is {config.evaluation.alone}, '
                   'which is for one host: set it to 0')
  configs = [config_dict.changed(config, seed=seed) for seed in seeds]
  folders = [workdir_lock.claim(pathlib.Path(workdir), own, extend=extend)
             for workdir, own in zip(workdirs, configs)]
  weights = [start_weights.read(*of, compare=True)
             for of in zip(configs, folders)]
  data = prepare.data_of(config, lazy=multihost.several(), console=consoles[0])
  examples = prepare.examples_of(config, data)
  members = _members(configs, folders, data, consoles, weights)
  recipe = prepare.as_begun(build.recipe(config), folders)
  where = _place(recipe, members, data)
  digests = _check_data(members, data, where)
  for member in members:
    terminal.say(member.console,
                 f'devices: {accelerators.described(where.layout.devices)}')
  # Checks the memory before a folder is written.
  compiling = preflight.check(recipe, where, members[0].online,
                              data.train_images, [m.parts for m in members],
                              folders)
  multihost.barrier('all folders are claimed')
  if multihost.first():
    for member, own, images in zip(members, configs, digests):
      _hold(member, own, data, images, holds, extend=extend)
    members = [member._replace(scorer=prepare.scorer_if_labelled(
        own, recipe.nets, data)) for member, own in zip(members, configs)]
  multihost.barrier('all folders are written')
  together = round_loop.federate(members, recipe=recipe, where=where,
                                 examples=examples, compiling=compiling)
  alone = [_train_alone(k, config, members, data, examples)
           for k in range(config.evaluation.alone)]
  samples = [prepare.sample_of(own, recipe.nets, data, member.parts)
             if not multihost.several() and not member.scorer else None
             for member, own in zip(members, configs)]
  return [_trained(member, sample, ended, list(own), data, images, where)
          for member, sample, ended, own, images in zip(
              members, samples, together,
              zip(*alone) if alone else [()] * len(members), digests)]


def _members(configs: Sequence[Config], folders: Sequence[pathlib.Path],
             data: sources.Dataset,
             consoles: Sequence[Console], weights: Sequence[
                 start_weights.Weights | None]) -> list[prepare.Member]:
  """Partitions the data and makes the first networks, for each seed."""
  parts = [prepare.parts_of(own, data) for own in configs]
  return [prepare.Member('federation', folder, mine,
                         prepare.networks_of(own, data, start)[1], own.seed,
                         None, console, start)
          for own, folder, mine, console, start in zip(
              configs, folders, parts, consoles, weights)]


def _place(recipe: Recipe, members: Sequence[prepare.Member],
           data: sources.Dataset) -> placement.Place:
  """Chooses the place of federations that start together."""
  return placement.choose(recipe, members[0].online, data.train_images,
                          members[0].parts, num_members=len(members))


def _check_data(members: Sequence[prepare.Member], data: sources.Dataset,
                where: placement.Place) -> list[data_record.Digests]:
  """Checks that the data is that of the runs, and shows it; returns digests.
  """
  hosts = where.layout.hosts() if multihost.several() else []
  digests = [data_record.digests(data, m.parts, hosts) for m in members]
  for member, found in zip(members, digests):
    data_record.check(member.folder, data, member.parts, found,
                      name='--config.data.source')
  if multihost.first():
    for member in members:
      data_record.show(data, member.parts, member.console)
  return digests


def _hold(member: prepare.Member, config: Config, data: sources.Dataset,
          images: data_record.Digests, holds: contextlib.ExitStack, *,
          extend: bool) -> None:
  """Locks a member's folder, and writes records of its data and weights."""
  for line in holds.enter_context(
      workdir_lock.held(member.folder, config, extend=extend)):
    terminal.say(member.console, line)
  if warning := data_record.damaged(member.folder):
    terminal.say(member.console, warning)
  # If this fails, it is tried again and reported at the end.
  data_record.write(member.folder, data, member.parts, images)
  start_weights.keep(member.folder, member.weights)
  for line in start_weights.told(member.weights, member.online, config):
    terminal.say(member.console, line)


def _train_alone(k: int, config: Config, members: Sequence[prepare.Member],
                 data: sources.Dataset,
                 examples: PyTree) -> list[round_loop.Ended]:
  """Trains client `k` of each member as a federation of its own."""
  alone = [m._replace(name=f'client {k} alone', folder=m.folder / f'alone{k}',
                      parts=[m.parts[k]]) for m in members]
  # A client alone has no uploads to lose.
  recipe = prepare.as_begun(
      dataclasses.replace(build.recipe(config), dropout=0.0, stragglers=0.0),
      [m.folder for m in alone])
  return round_loop.federate(alone, recipe=recipe, examples=examples,
                             where=_place(recipe, alone, data))


def _trained(member: prepare.Member, sample: label_free.Sample | None,
             ended: round_loop.Ended, alone: list[round_loop.Ended],
             data: sources.Dataset, images: data_record.Digests,
             where: placement.Place) -> Trained:
  """Collects the networks of a member, and the failures to write its files."""
  unsaved = [own.unsaved for own in (ended, *alone) if own.unsaved]
  if multihost.first():
    unsaved += data_record.write(member.folder, data, member.parts, images)
    unsaved += start_weights.keep(member.folder, member.weights)
  return Trained(member.scorer, sample, member.online, ended.online,
                 [own.online for own in alone], ended.speed, unsaved,
                 data.files and data.files.summary(),
                 accelerators.record(where.layout.devices))


@host_memory.watched('the rounds that are saved stay, and their scores are '
                     'computed when it is started again: end other programs, '
                     'or choose fewer images')
def train_and_evaluate(config: Config, workdir: str, *,
                       console: Console | None = None,
                       extend: bool = False) -> dict[str, Any]:
  """Trains as `train` does, and scores the networks.

  Returns:
    The summary, which is also written to `summary.json`. With several hosts,
    only the first one's has scores.

  Raises:
    BadInput, Interrupted: as in `train`.
    Unsaved: the end could not be saved, but it has been scored.
  """
  with contextlib.ExitStack() as holds:
    shown = console or terminal.console(quiet=not multihost.first())
    return _train_and_evaluate(config, workdir, holds, shown, extend)


@prng.fixed()
def _train_and_evaluate(config: Config, workdir: str,
                        holds: contextlib.ExitStack,
                        console: Console, extend: bool) -> dict[str, Any]:
  began = time.perf_counter()
  config = checks.checked(config)  # that there is a seed, too
  trained, = train_seeds(config, [config.seed], [workdir], consoles=[console],
                         holds=holds, extend=extend)
  scores = {}
  if trained.scorer:
    scores = run_summary.scores_of(
        trained.scorer, untrained=trained.untrained, alone=trained.alone,
        federation=trained.federation)
    console.print(score_tables.by_encoder(scores))
    if unsound := score_tables.unsound_line(scores):
      terminal.say(console, unsound)
  elif not trained.sample:
    console.print('several hosts score labelled test images only')
  summary = run_summary.summary_of(
      config, scores, trained.speed, measures=run_summary.label_free_of(
          trained.sample, trained.federation, console),
      wall=time.perf_counter() - began, files=trained.files,
      devices=trained.devices,
      extensions=config_changes.extensions(pathlib.Path(workdir)))
  unsaved = trained.unsaved
  if multihost.first() and (failure := json_files.attempt(
      pathlib.Path(workdir) / 'summary.json', summary)):
    unsaved = [*unsaved, failure]
  if unsaved:
    raise Unsaved(f'{"; ".join(map(str, unsaved))}: {unsaved[0].advice}, and '
                  'start again to go on from what is saved')
  return summary
