"""Runs all rounds of a federation, or of several as one program."""

from collections.abc import Callable, Sequence
import contextlib
import functools
import time
from typing import NamedTuple

import jax

from fedu_jax.core import communication
from fedu_jax.core.state import Online, PyTree
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import multihost
from fedu_jax.runtime import signals
from fedu_jax.runtime import terminal
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime.durable_files import Unwritten
from fedu_jax.runtime.errors import Diverged, Interrupted, Unsaved
from fedu_jax.runtime.metrics_log import Row
from fedu_jax.training import checkpointing
from fedu_jax.training import collapse
from fedu_jax.training import prepare
from fedu_jax.training import round_report
from fedu_jax.training.engine import client_store
from fedu_jax.training.engine import clients_in_chunks
from fedu_jax.training.engine import clients_on_device
from fedu_jax.training.engine import clients_streamed
from fedu_jax.training.engine import placement
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.federation import Federation
from fedu_jax.training.engine.recipe import Recipe


class Ended(NamedTuple):
  """A federation after its rounds."""
  online: Online  # the server's network
  speed: dict[str, float]
  unsaved: Unwritten | None  # the failure to save its last round, if any


def federate(members: Sequence[prepare.Member], *, recipe: Recipe,
             where: placement.Place, examples: PyTree,
             compiling: float = 0.0) -> list[Ended]:
  """Runs all remaining rounds.

  Several federations run as one vmapped program if they are on one device, have
  arrays of the same shapes, and have done the same number of rounds. Otherwise
  they run one after the other.

  Args:
    members: the federations.
    recipe: the recipe of all of them.
    where: the place that `placement.choose` found.
    examples: the training data: images [N, H, W, C], or Labelled.
    compiling: seconds already spent on compiling the round.

  Returns:
    The end of each federation.

  Raises:
    BadInput: a checkpoint is damaged or does not fit, or a round does not fit
      the memory.
    Diverged: the numbers of all clients, or of the server, are not finite.
    Interrupted: a signal came; the round is saved.
    Unsaved: a signal came, and the round could not be saved.
  """
  server, client, _ = round_program.shapes(
      recipe, members[0].online, jax.tree.leaves(examples)[0].shape[1:])
  sent = round_program.sent(recipe, server, client, len(members[0].parts))
  with contextlib.ExitStack() as stack:
    saved = [stack.enter_context(contextlib.closing(Checkpoints(
        m.folder / 'checkpoints', keep=recipe.checkpoint_keep)))
        for m in members]
    for m, own in zip(members, saved):
      checkpointing.check_begun(m.folder, own, where.store, recipe)
    for own in saved:
      own.tidy()
    # These must be equal: the largest client, and the completed rounds.
    shapes = {(max(map(len, m.parts)), own.latest())
              for m, own in zip(members, saved)}
    together = (len(shapes) == 1 and where.store == 'device'
                and not where.layout.mesh)
    size = len(members) if together else 1
    ended: list[Ended] = []
    for first in range(0, len(members), size):
      some = slice(first, first + size)
      begin = functools.partial(
          clients_on_device.ClientsOnDevice, [m.start for m in members[some]],
          saved[some]
      ) if where.store == 'device' else functools.partial(
          _streamed(where), members[first].start, saved[first],
          make_store=_stores(members[first])[where.store])
      ended += _rounds(members[some], saved[some], begin(
          recipe=recipe, examples=examples, layout=where.layout),
          recipe, sent, where, compiling)
      compiling = 0.0
  return ended


def _streamed(where: placement.Place) -> Callable[..., Federation]:
  """Returns what makes a federation with clients in a store."""
  if length := where.sizes.chunk_steps:
    return functools.partial(clients_in_chunks.ClientsInChunks, length=length)
  return clients_streamed.ClientsStreamed


def _stores(member: prepare.Member
            ) -> dict[str, Callable[..., client_store.Store]]:
  return {'host': client_store.InMemory, 'disk': functools.partial(
      client_store.OnDisk, folder=member.folder / 'clients')}


class _Running(NamedTuple):
  """One of the federations that run together."""
  member: prepare.Member
  checkpoints: Checkpoints
  report: round_report.NoReport
  collapse: collapse.Collapse

  def say(self, text: str) -> None:
    """Prints a line about this federation."""
    terminal.say(self.member.console, f'{self.member.name}: {text}')


def _rounds(members: Sequence[prepare.Member], saved: Sequence[Checkpoints],
            federation: Federation, recipe: Recipe,
            sent: communication.Sent, where: placement.Place,
            compiling: float) -> list[Ended]:
  """Runs the remaining rounds of federations at the same round."""
  unsaved: list[Unwritten | None] = [None] * len(members)
  with contextlib.ExitStack() as stack:
    running = [
        _Running(member, own, stack.enter_context(
            _report(member, federation.done, recipe.rounds)),
                 collapse.Collapse())
        for member, own in zip(members, saved)]
    for one in running:
      if text := checkpointing.begins(federation.done, recipe.rounds,
                                      one.checkpoints, one.report):
        one.say(text)
    if federation.done < recipe.rounds:
      compiling += _compile(federation)
      placement.check(recipe, where, federation.compiled,
                      together=len(members), begun=True)
      together = (f', {len(members)} seeds as one program' if members[1:]
                  else '')
      for one in running:
        one.say(f'compiled{federation.where} in {compiling:.0f} s{together}')
      stack.enter_context(signals.held_back())
    while federation.done < recipe.rounds:
      unsaved = _round(federation, running, recipe, sent,
                       accelerators.record(where.layout.devices))
  return [Ended(federation.online(i),
                one.report.sums() | {'compile_seconds': compiling}, failure)
          for i, (one, failure) in enumerate(zip(running, unsaved))]


def _report(member: prepare.Member, done: int,
            rounds: int) -> round_report.NoReport:
  if not multihost.first():
    return round_report.NoReport()
  return round_report.RoundReport(member.folder, member.console, member.name,
                                  done=done, rounds=rounds)


def _compile(federation: Federation) -> float:
  """Compiles a federation's programs; returns the seconds that it took."""
  began = time.perf_counter()
  federation.compile()
  return time.perf_counter() - began


def _round(federation: Federation, running: Sequence[_Running],
           recipe: Recipe, sent: communication.Sent, devices: Row
           ) -> list[Unwritten | None]:
  """Runs one round, reports it, and saves it if that is due.

  Returns:
    For each federation the failure if it could not be saved, else None.

  Raises:
    Diverged, Interrupted, Unsaved: as in `federate`.
  """
  began = time.perf_counter()
  metrics = federation.advance()
  seconds = time.perf_counter() - began
  done = federation.done
  last = done == recipe.rounds
  for i, one in enumerate(running):
    row = round_report.row_of(done, metrics[i], seconds, sent=sent,
                              batch_size=recipe.batch_size) | devices
    if one.member.scorer and recipe.evaluation_every and (
        last or done % recipe.evaluation_every == 0):
      row['knn_accuracy'] = one.member.scorer.knn(federation.online(i).encoder)
    one.report.add(row)
    if warning := one.collapse.warning(row):
      one.say(warning)

  # Federations in which no client is sound.
  unheard = [i for i, own in enumerate(metrics) if not own['sound'].any()]
  unsaved: list[Unwritten | None] = [None] * len(running)
  if due := last or unheard or done % recipe.checkpoint_every == 0:
    unsaved = _save(federation, running)
  if unheard:
    raise _diverged(running[unheard[0]], done, unsaved[unheard[0]])
  if multihost.any_of(signals.asked()):
    if not due:
      unsaved = _save(federation, running)
    raise _interrupted(done, recipe.rounds, unsaved)
  return unsaved


def _save(federation: Federation, running: Sequence[_Running]
          ) -> list[Unwritten | None]:
  """Saves all federations, and prints failures."""
  unsaved = []
  for i, one in enumerate(running):
    failure = checkpointing.save(federation, i, one.checkpoints,
                                 one.report.settle)
    if failure:
      one.say(f'{failure}; trying again at the next')
    unsaved.append(failure)
  return unsaved


def _diverged(one: _Running, done: int, unsaved: Unwritten | None) -> Diverged:
  """The error if no client of a federation has finite numbers."""
  kept = unsaved or 'the global network is saved as it was before'
  return Diverged(
      f'{one.member.folder}: in round {done} the numbers of all clients went '
      f'wrong (not finite); {kept}: check the data, or lower '
      'config.optimizer.learning_rate in another --workdir')


def _interrupted(done: int, rounds: int,
                 unsaved: Sequence[Unwritten | None]) -> Interrupted | Unsaved:
  """The error after a signal, which says whether all is saved."""
  for failure in filter(None, unsaved):
    return Unsaved(f'interrupted, and the {failure}; {failure.advice}, and '
                   'start again')
  return signals.interrupted(f'after round {done} of {rounds}')
