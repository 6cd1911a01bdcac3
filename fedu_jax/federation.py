"""All rounds of a federation, or of several that run as one program."""

from collections.abc import Sequence
import contextlib
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from rich.console import Console

from fedu_jax import devices
from fedu_jax import hosts
from fedu_jax import local
from fedu_jax import networks
from fedu_jax import program
from fedu_jax import report
from fedu_jax import runs
from fedu_jax import sources
from fedu_jax import trees
from fedu_jax.checkpoint import Checkpoints
from fedu_jax.errors import BadInput
from fedu_jax.scores import Scorer
from fedu_jax.state import ClientArrays, Labelled, Metrics, Online, PyTree


class Member(NamedTuple):
  """One federation: where several seeds run together, a seed's."""
  name: str
  folder: pathlib.Path
  parts: list[np.ndarray]  # for each client, the rows of the data that it owns
  online: Online  # what the server sends out first
  seed: int
  scorer: Scorer | None
  console: Console


class _Begun(NamedTuple):
  """A federation as far as it has come."""
  run: runs.Run
  arrays: ClientArrays


def federate(members: Sequence[Member], *, config: ml_collections.ConfigDict,
             nets: networks.Nets, data: sources.Dataset
             ) -> list[tuple[Online, dict[str, float]]]:
  """Runs all rounds, or what is left of them.

  Federations whose arrays have the same shapes and that have done as many
  rounds run as one program, vmapped, on one device; others one after the other,
  as do all of them if the config asks for several devices.

  Args:
    members: the federations.
    config: of all of them, but for the seed.
    nets: likewise.
    data: whose rows they own.

  Returns:
    For each its global network and its speed.

  Raises:
    BadInput: the learner needs labels and the data has none.
  """
  examples: PyTree = data.train_images
  if runs.labelled(config):
    if data.train_labels is None:
      raise BadInput(f'learner {config.learner.name} needs labels, and '
                     f'{config.data.source} has none')
    examples = Labelled(data.train_images, data.train_labels)
  layout = layout_of(config, len(members[0].parts), len(members))
  with contextlib.ExitStack() as stack:
    saved = [stack.enter_context(contextlib.closing(Checkpoints(
        m.folder / 'checkpoints', keep=config.checkpoint.keep)))
        for m in members]
    # What must be equal: the largest client, and the rounds that are done.
    shapes = {(max(map(len, m.parts)), own.latest())
              for m, own in zip(members, saved)}
    size = len(members) if len(shapes) == 1 and not layout.mesh else 1
    ended = []
    for first in range(0, len(members), size):
      some = slice(first, first + size)
      begun = [_begin(member, own, examples, config, nets, layout)
               for member, own in zip(members[some], saved[some])]
      ended += _rounds(members[some], saved[some], begun, config, nets,
                       layout)
  return ended


def layout_of(config: ml_collections.ConfigDict, num_clients: int,
              num_members: int) -> devices.Layout:
  """Chooses the devices of federations of so many clients each.

  Raises:
    BadInput: the config asks for devices that there are not, or not for this.
  """
  # Several share a device, rather than that each is spread over all.
  auto = config.devices == 'auto' and num_members > 1
  return devices.layout('1' if auto else config.devices, num_clients,
                        sampled=program.is_sampled(config, num_clients))


def _begin(member: Member, saved: Checkpoints, examples: PyTree,
           config: ml_collections.ConfigDict, nets: networks.Nets,
           layout: devices.Layout) -> _Begun:
  """Restores a federation, or makes one that has not trained yet."""
  padding = [np.array([], int)] * (layout.padded - layout.num_clients)
  by_client = layout.sharding(devices.BY_CLIENT)
  everywhere = layout.sharding(devices.EVERYWHERE)
  arrays = local.client_arrays(examples, [*member.parts, *padding], by_client)
  image = jax.tree.leaves(arrays.images)[0]
  sizes = np.array([len(part) for part in [*member.parts, *padding]])
  where = (everywhere, by_client, everywhere)

  def init():
    rng = jax.random.key(member.seed)
    return (*program.init_state(
        config, nets, member.online, sizes, rng,
        jnp.zeros((1, *image.shape[2:]))), rng)
  # Made where it will lie: no device has room for all, no host reaches all.
  # And placed as a restored checkpoint is, or a resumed run would compile anew.
  start = runs.Run(*jax.jit(init, out_shardings=where)() if layout.mesh else
                   jax.device_put(init(), where))
  return _Begun(saved.restore(start) or start, arrays)


def _rounds(members: Sequence[Member], saved: Sequence[Checkpoints],
            begun: list[_Begun], config: ml_collections.ConfigDict,
            nets: networks.Nets, layout: devices.Layout
            ) -> list[tuple[Online, dict[str, float]]]:
  """Runs what is left of federations at the same round; empties `begun`."""
  several = len(members) > 1
  (run, arrays), = begun if not several else [
      jax.tree.map(lambda *x: jnp.stack(x), *begun)]
  done = int(begun[0].run.server.round)
  begun.clear()  # or a device would hold everything twice

  def of(i, tree):
    return jax.tree.map(lambda x: x[i], tree) if several else tree

  def online_of(i):  # on one device, which scores it
    return hosts.own_copy(of(i, run.server.online))

  def say(text):
    for member in members:
      member.console.print(f'{member.name}: {text}')
  if done == config.rounds:
    say(f'all {done} rounds are done; evaluating')
  elif done:
    say(f'going on after round {done} of {config.rounds}')
  compile_seconds = 0.0
  with contextlib.ExitStack() as stack:
    reports = [stack.enter_context(report.RoundReport(
        m.folder, m.console, m.name, done=done, rounds=config.rounds)
        if hosts.first() else report.NoReport()) for m in members]
    if done < config.rounds:
      began = time.time()
      one_round = program.compile_round(
          config, nets, run.server, run.clients, arrays, run.rng,
          layout=layout)
      compile_seconds = time.time() - began
      share = f' for {layout.mesh.size} devices' if layout.mesh else ''
      if hosts.several():
        share += f' of {jax.process_count()} hosts'
      say(f'compiled{share} in {compile_seconds:.0f} s')
    while done < config.rounds:
      began = time.time()
      # A round does not wait for the host: what would cross raises.
      with jax.transfer_guard('disallow_explicit'):
        server, clients, metrics = one_round(
            run.server, run.clients, arrays, run.rng)
      metrics = hosts.gather(metrics)
      seconds = time.time() - began
      run, done = runs.Run(server, clients, run.rng), done + 1
      last = done == config.rounds
      for i, member in enumerate(members):
        row = _row(done, {name: x[:layout.num_clients] for name, x in
                          of(i, metrics).items()},
                   seconds, config, member.online)
        if member.scorer and config.evaluation.every and (
            last or done % config.evaluation.every == 0):
          row['knn_accuracy'] = member.scorer.knn(online_of(i).encoder)
        reports[i].add(row)
        if last or done % config.checkpoint.every == 0:
          saved[i].save(done, of(i, run))
  return [(online_of(i),
           _speed(reported.rows) | {'compile_seconds': compile_seconds})
          for i, reported in enumerate(reports)]


def _speed(rows: list[report.Row]) -> dict[str, float]:
  """Of all rounds, those of earlier starts included."""
  seconds = sum(row['seconds'] for row in rows)
  images = sum(row['images'] for row in rows)
  return {'images_per_second': images / seconds if seconds else 0.0,
          'seconds': seconds}


def _row(done: int, metrics: Metrics, seconds: float,
         config: ml_collections.ConfigDict, online: Online) -> report.Row:
  """Sorts a round's metrics into what is the round's and what a client's."""
  per_client = dict(metrics)
  cohort = per_client.pop('cohort')
  took = per_client.pop('global_predictor')
  arrived = per_client.pop('arrived')
  images = int(per_client['steps'].sum()) * config.batch_size
  size = trees.num_bytes(online)
  return {
      'round': done, 'loss': np.mean(per_client['loss']),
      'divergence_min': per_client['divergence'].min(),
      'divergence_max': per_client['divergence'].max(),
      'bytes_up': size * int(arrived.sum()), 'bytes_down': size * len(cohort),
      'images': images, 'seconds': seconds,
      'images_per_second': images / seconds, 'cohort': cohort,
      'arrived': arrived, 'global_predictor': took, 'clients': per_client}
