"""All rounds of a federation, or of several that run as one program."""

from collections.abc import Callable, Sequence
import contextlib
import functools
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core import communication
from fedu_jax.core.state import Metrics, Online, PyTree
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput, Diverged, Unsaved
from fedu_jax.runtime import metrics_log
from fedu_jax.runtime import multihost
from fedu_jax.runtime import signals
from fedu_jax.runtime import terminal
from fedu_jax.training import collapse
from fedu_jax.training.engine import client_store
from fedu_jax.training.engine import clients_on_device
from fedu_jax.training.engine import clients_streamed
from fedu_jax.training.engine.federation import Federation, Run
from fedu_jax.training.engine import placement
from fedu_jax.training.engine.recipe import Recipe
from fedu_jax.training.engine import round_program
from fedu_jax.training import prepare
from fedu_jax.training import round_report
from fedu_jax.training import workdir_lock


class Ended(NamedTuple):
  """A federation after its rounds."""
  online: Online  # its global network
  speed: dict[str, float]
  unsaved: str  # what could not be written in the end; '' if all was


def federate(members: Sequence[prepare.Member], *, recipe: Recipe,
             where: placement.Place, examples: PyTree,
             compiling: float = 0.0) -> list[Ended]:
  """Runs all rounds, or what is left of them.

  Federations whose arrays have the same shapes and that have done as many
  rounds run as one program, vmapped, on one device; others one after the other,
  as do all of them on several devices, or if their clients lie elsewhere.

  Args:
    members: the federations.
    recipe: of all of them.
    where: they run, as `placement.choose` found it.
    examples: the data whose rows they own: images u8 [N, H, W, C], or Labelled.
    compiling: seconds that went into compiling their round before.

  Returns:
    For each what came of it.

  Raises:
    BadInput: what an earlier start left is not sound, or no longer fits in; or
      a round does not fit the memory.
    Diverged: a round's numbers went wrong for all clients, or for the server.
    Interrupted: a signal came in a round, which is saved.
    Unsaved: a signal came, and what it ended could not be saved.
  """
  server, client, _ = round_program.shapes(
      recipe, members[0].online, jax.tree.leaves(examples)[0].shape[1:])
  sent = round_program.sent(recipe, server, client, len(members[0].parts))
  with contextlib.ExitStack() as stack:
    saved = [stack.enter_context(contextlib.closing(Checkpoints(
        m.folder / 'checkpoints', keep=recipe.checkpoint_keep)))
        for m in members]
    for m, own in zip(members, saved):
      _check_begun(m.folder, own, where.store, recipe)
    for own in saved:
      own.tidy()
    # What must be equal: the largest client, and the rounds that are done.
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
          clients_streamed.ClientsStreamed, members[first].start, saved[first],
          make_store=_stores(members[first])[where.store])
      ended += _rounds(members[some], saved[some], begin(
          recipe=recipe, examples=examples, layout=where.layout),
          recipe, sent, where, compiling)
      compiling = 0.0
  return ended


def _check_begun(folder: pathlib.Path, own: Checkpoints, store_: str,
                 recipe: Recipe) -> None:
  """Refuses to go on in a way by which what is there would be lost."""
  if own.latest() is not None:
    if store_ == 'disk' and not workdir_lock.on_disk(folder):
      raise BadInput(
          f'the clients of {folder} lie in memory, and half of this host\'s '
          'has no room for them: go on where there is more, or choose another '
          '--workdir, where they will lie on disk')
    return
  # One that has not saved yet has not done more rounds than this.
  path = folder / 'metrics.jsonl'
  if (rounds := metrics_log.last(path)) > recipe.checkpoint_every:
    raise BadInput(
        f'{path} tells of {rounds} rounds, and there is no checkpoint: put '
        f'{folder / "checkpoints"} back, or remove that file to begin anew')


def _stores(member: prepare.Member
            ) -> dict[str, Callable[..., client_store.Store]]:
  return {'host': client_store.InMemory, 'disk': functools.partial(
      client_store.OnDisk, folder=member.folder / 'clients')}


def _rounds(members: Sequence[prepare.Member], saved: Sequence[Checkpoints],
            federation: Federation, recipe: Recipe,
            sent: communication.Sent, where: placement.Place,
            compiling: float) -> list[Ended]:
  """Runs what is left of federations at the same round."""
  def say(text):
    for member in members:
      terminal.say(member.console, f'{member.name}: {text}')
  done = federation.done
  compile_seconds = compiling
  unsaved = [''] * len(members)
  with contextlib.ExitStack() as stack:
    reports = [stack.enter_context(round_report.RoundReport(
        m.folder, m.console, m.name, done=done, rounds=recipe.rounds)
        if multihost.first() else round_report.NoReport()) for m in members]
    watched = [collapse.Collapse() for _ in members]
    for member, own, reported in zip(members, saved, reports):
      if text := _begins(done, recipe.rounds, own, reported):
        terminal.say(member.console, f'{member.name}: {text}')
    if done < recipe.rounds:
      began = time.perf_counter()
      federation.compile()
      compile_seconds += time.perf_counter() - began
      placement.check(recipe, where, federation.compiled, together=len(members),
                      begun=True)
      say(f'compiled{federation.where} in {compile_seconds:.0f} s' + (
          f', {len(members)} seeds as one program' if members[1:] else ''))
      stack.enter_context(signals.held_back())
    while done < recipe.rounds:
      began = time.perf_counter()
      metrics = federation.advance()
      seconds = time.perf_counter() - began
      done = federation.done
      last = done == recipe.rounds
      # Whose server was told nothing that it could use.
      unheard = [i for i, own in enumerate(metrics) if not own['sound'].any()]
      for i, member in enumerate(members):
        row = _row(done, metrics[i], seconds, recipe, sent)
        if member.scorer and recipe.evaluation_every and (
            last or done % recipe.evaluation_every == 0):
          row['knn_accuracy'] = member.scorer.knn(federation.online(i).encoder)
        reports[i].add(row)
        if warning := watched[i].warning(row):
          terminal.say(member.console, f'{member.name}: {warning}')

      def save():
        return [_save(i, federation, own, reports[i], member)
                for i, (own, member) in enumerate(zip(saved, members))]
      if due := last or unheard or done % recipe.checkpoint_every == 0:
        unsaved = save()
      if unheard:
        kept = unsaved[unheard[0]] or (
            'the global network is saved as it was before')
        raise Diverged(
            f'{members[unheard[0]].folder}: in round {done} the numbers of all '
            f'clients went wrong (not finite); {kept}: check the data, or '
            'lower config.optimizer.learning_rate in another --workdir')
      if multihost.any_of(signals.asked()):
        if not due:
          unsaved = save()
        if any(unsaved):
          raise Unsaved(f'interrupted, and the {max(unsaved)}; '
                        f'{durable_files.advice(max(unsaved))}, and start '
                        'again')
        raise signals.interrupted(f'after round {done} of {recipe.rounds}')
  return [Ended(federation.online(i), _sums(reported)
                | {'compile_seconds': compile_seconds}, unsaved[i])
          for i, reported in enumerate(reports)]


def _begins(done: int, rounds: int, own: Checkpoints,
            reported: round_report.NoReport) -> str:
  """Says where a federation begins, and what was lost of what it had done."""
  text = ''.join(f'checkpoint {step} is damaged ({wrong}): '
                 for step, wrong in own.damaged.items())
  lost = max([reported.beyond, *own.damaged])
  if done == rounds:
    text += f'all {done} rounds are done; evaluating'
  elif done or lost:
    text += f'going on after round {done} of {rounds}'
  if lost > done:
    text += f'; what was done up to round {lost} is done again'
  if reported.missing:
    text += f'; metrics.jsonl is damaged, and lacks {reported.missing} rounds'
  return text


def _save(i: int, federation: Federation,
          own: Checkpoints, reported: round_report.NoReport,
          member: prepare.Member) -> str:
  """Saves a federation; returns what is unsaved, if that fails, or ''.

  Raises:
    Diverged: no run can go on from what its server has.
  """
  done = federation.done
  try:
    run = federation.state(i)  # where clients lie on disk, it writes them
    _check_server(run, own)
    multihost.together(reported.settle)  # first: what is done is not run again
    own.save(done, run, federation.files())
  except OSError as error:
    before = own.latest()
    unsaved = (f'checkpoint of round {done} could not be saved '
               f'({durable_files.reason(error)}): '
               + (f'that of round {before} stays' if before is not None
                  else 'there is none yet'))
    terminal.say(member.console,
                 f'{member.name}: {unsaved}; trying again at the next')
    return unsaved
  federation.keep_from(own.oldest())
  return ''


def _check_server(run: Run, own: Checkpoints) -> None:
  """Refuses to save what no run can go on from.

  What clients send is sound (see `rounds`), but what becomes of it may be a
  researcher's own function.
  """
  server = jax.device_get(multihost.own_copy(run.server))
  if not all(np.isfinite(x).all() for x in jax.tree.leaves(server)
             if jnp.issubdtype(x.dtype, jnp.inexact)):
    raise Diverged(
        f'after round {int(server.round)} what the server has is not finite, '
        'though it leaves out what is not: it is not saved, and the newest '
        f'checkpoint is of round {own.latest() or 0}; choose another '
        'config.aggregation and --workdir')


def _sums(reported: round_report.NoReport) -> dict[str, float]:
  """Of all rounds, those of earlier starts included."""
  seconds = reported.seconds
  return {'images_per_second': reported.images / seconds if seconds else 0.0,
          'seconds': seconds, 'left_out': reported.left_out}


def _row(done: int, metrics: Metrics, seconds: float,
         recipe: Recipe,
         sent: communication.Sent) -> round_report.Row:
  """Sorts a round's metrics into what is the round's and what a client's."""
  per_client = dict(metrics)
  cohort = per_client.pop('cohort')
  took = per_client.pop('global_predictor')
  arrived = per_client.pop('arrived')
  sound = per_client.pop('sound')
  # Of whom the mean is; of all, if there is none.
  counted = sound if sound.any() else ...
  drift = per_client['divergence'][counted]
  mean = {}
  if 'loss' in per_client:  # not every learner has one
    with np.errstate(invalid='ignore', over='ignore'):
      # Not finite, if nobody's is.
      mean = {'loss': np.mean(per_client['loss'][counted])}
  images = int(per_client['steps'].sum()) * recipe.batch_size
  return {
      'round': done, **mean,
      'divergence_min': drift.min(), 'divergence_max': drift.max(),
      # An upload that did not arrive is not counted; one left out for its
      # numbers is, since it was sent.
      'bytes_up': sent.up * int(arrived.sum()),
      'bytes_down': sent.down * len(cohort),
      'images': images, 'seconds': seconds,
      'images_per_second': images / seconds, 'cohort': cohort,
      'arrived': arrived, 'left_out': cohort[~sound],
      'global_predictor': took, 'clients': per_client}
