"""All rounds of a federation, or of several that run as one program."""

from collections.abc import Callable, Sequence
import contextlib
import functools
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fedu_jax import health
from fedu_jax import hosts
from fedu_jax import networks
from fedu_jax import place
from fedu_jax import report
from fedu_jax import resident
from fedu_jax import runs
from fedu_jax import sources
from fedu_jax import store
from fedu_jax import travelling
from fedu_jax import trees
from fedu_jax.checkpoint import Checkpoints
from fedu_jax.errors import BadInput
from fedu_jax.state import Labelled, Metrics, Online, PyTree


def federate(members: Sequence[runs.Member], *,
             config: ml_collections.ConfigDict, nets: networks.Nets,
             data: sources.Dataset
             ) -> list[tuple[Online, dict[str, float]]]:
  """Runs all rounds, or what is left of them.

  Federations whose arrays have the same shapes and that have done as many
  rounds run as one program, vmapped, on one device; others one after the other,
  as do all of them on several devices, or if their clients lie elsewhere.

  Args:
    members: the federations.
    config: of all of them, but for the seed.
    nets: likewise.
    data: whose rows they own.

  Returns:
    For each its global network and its speed.

  Raises:
    BadInput: the learner needs labels and the data has none; or a round's
      numbers went wrong for all clients, or for the server.
  """
  examples: PyTree = data.train_images
  if runs.labelled(config):
    if data.train_labels is None:
      raise BadInput(f'learner {config.learner.name} needs labels, and '
                     f'{config.data.source} has none')
    examples = Labelled(data.train_images, data.train_labels)
  where = place.choose(config, nets, members[0].online, data.train_images,
                       members[0].parts, num_members=len(members))
  with contextlib.ExitStack() as stack:
    saved = [stack.enter_context(contextlib.closing(Checkpoints(
        m.folder / 'checkpoints', keep=config.checkpoint.keep)))
        for m in members]
    # What must be equal: the largest client, and the rounds that are done.
    shapes = {(max(map(len, m.parts)), own.latest())
              for m, own in zip(members, saved)}
    together = (len(shapes) == 1 and where.store == 'device'
                and not where.layout.mesh)
    size = len(members) if together else 1
    ended = []
    for first in range(0, len(members), size):
      some = slice(first, first + size)
      begin = functools.partial(
          resident.Resident, members[some], saved[some]
      ) if where.store == 'device' else functools.partial(
          travelling.Travelling, members[first], saved[first],
          make_store=_stores(members[first])[where.store])
      ended += _rounds(members[some], saved[some], begin(
          config=config, nets=nets, examples=examples, layout=where.layout),
          config)
  return ended


def _stores(member: runs.Member) -> dict[str, Callable[..., store.Store]]:
  return {'host': store.InMemory, 'disk': functools.partial(
      store.OnDisk, folder=member.folder / 'clients')}


def _rounds(members: Sequence[runs.Member], saved: Sequence[Checkpoints],
            federation: resident.Resident | travelling.Travelling,
            config: ml_collections.ConfigDict
            ) -> list[tuple[Online, dict[str, float]]]:
  """Runs what is left of federations at the same round."""
  def say(text):
    for member in members:
      member.console.print(f'{member.name}: {text}')
  done = federation.done
  if done == config.rounds:
    say(f'all {done} rounds are done; evaluating')
  elif done:
    say(f'going on after round {done} of {config.rounds}')
  compile_seconds = 0.0
  with contextlib.ExitStack() as stack:
    reports = [stack.enter_context(report.RoundReport(
        m.folder, m.console, m.name, done=done, rounds=config.rounds)
        if hosts.first() else report.NoReport()) for m in members]
    watched = [health.Collapse() for _ in members]
    if done < config.rounds:
      began = time.time()
      federation.compile()
      compile_seconds = time.time() - began
      say(f'compiled{federation.where} in {compile_seconds:.0f} s')
    while done < config.rounds:
      began = time.time()
      metrics = federation.advance()
      seconds = time.time() - began
      done = federation.done
      last = done == config.rounds
      # Whose server was told nothing that it could use.
      unheard = [i for i, own in enumerate(metrics) if not own['sound'].any()]
      for i, member in enumerate(members):
        row = _row(done, metrics[i], seconds, config, member.online)
        if member.scorer and config.evaluation.every and (
            last or done % config.evaluation.every == 0):
          row['knn_accuracy'] = member.scorer.knn(federation.online(i).encoder)
        reports[i].add(row)
        if warning := watched[i].warning(row):
          member.console.print(f'{member.name}: {warning}', soft_wrap=True)
        if last or unheard or done % config.checkpoint.every == 0:
          _save(done, federation.state(i), saved[i])
          federation.saved(saved[i].oldest())
      if unheard:
        raise BadInput(
            f'{members[unheard[0]].name}: in round {done} the numbers of all '
            'clients went wrong (not finite); the global network is saved as '
            'it was before: check the data, or lower '
            'config.optimizer.learning_rate in another --workdir')
  return [(federation.online(i),
           _sums(reported) | {'compile_seconds': compile_seconds})
          for i, reported in enumerate(reports)]


def _sums(reported: report.NoReport) -> dict[str, float]:
  """Of all rounds, those of earlier starts included."""
  seconds = reported.seconds
  return {'images_per_second': reported.images / seconds if seconds else 0.0,
          'seconds': seconds, 'left_out': reported.left_out}


def _save(done: int, run: runs.Run, saved: Checkpoints) -> None:
  """Saves a run, if one can go on from what its server has.

  Raises:
    BadInput: one cannot. What clients send is sound (see `rounds`), but what
      becomes of it may be a researcher's own function.
  """
  server = jax.device_get(hosts.own_copy(run.server))
  if not all(np.isfinite(x).all() for x in jax.tree.leaves(server)
             if jnp.issubdtype(x.dtype, jnp.inexact)):
    last = saved.latest()
    raise BadInput(
        f'after round {done} what the server has is not finite, though it '
        'leaves out what is not: it is not saved, and the newest checkpoint is '
        f'of round {last or 0}; choose another config.aggregation and '
        '--workdir')
  saved.save(done, run)


def _row(done: int, metrics: Metrics, seconds: float,
         config: ml_collections.ConfigDict, online: Online) -> report.Row:
  """Sorts a round's metrics into what is the round's and what a client's."""
  per_client = dict(metrics)
  cohort = per_client.pop('cohort')
  took = per_client.pop('global_predictor')
  arrived = per_client.pop('arrived')
  sound = per_client.pop('sound')
  # Of whom the mean is; of all, if there is none.
  loss, drift = (per_client[name][sound if sound.any() else ...]
                 for name in ('loss', 'divergence'))
  images = int(per_client['steps'].sum()) * config.batch_size
  size = trees.num_bytes(online)
  return {
      'round': done, 'loss': np.mean(loss),
      'divergence_min': drift.min(), 'divergence_max': drift.max(),
      'bytes_up': size * int(arrived.sum()), 'bytes_down': size * len(cohort),
      'images': images, 'seconds': seconds,
      'images_per_second': images / seconds, 'cohort': cohort,
      'arrived': arrived, 'left_out': cohort[~sound],
      'global_predictor': took, 'clients': per_client}
