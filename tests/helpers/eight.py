"""What device_mesh_test asks of a process that sees eight devices; prints JSON.

  python -m tests.helpers.eight rounds <case> ...
  python -m tests.helpers.eight runs <folder> <run> ...

A case is <devices>,<devices of a client>,<clients>,<aggregation>, and ,ragged
for clients of different sizes, some of which stop early; a run is JSON
of [<name>, <the round that it stops after, 0 = never>, {<field>: <value>}].
"""

import collections
import dataclasses
import json
import re
import sys

import jax
import numpy as np
from rich.console import Console

from fedu_jax.core import local_training
from fedu_jax.data.sources import Dataset
from fedu_jax.plan import hlo_text
from fedu_jax.runtime import checkpoint
from fedu_jax.training import prepare
from fedu_jax.training import train
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import round_program
from tests.helpers import tiny

_COLLECTIVES = re.compile(
    r'\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)'
    r'(?:-start)?\(')


def rounds(*cases):
  """Runs two rounds for each case, on one device and on several."""
  alone = {}  # clients and aggregation -> what one device makes of them
  return [_rounds(int(devices_), int(group), int(clients), aggregation, alone,
                  ragged=bool(ragged))
          for devices_, group, clients, aggregation, *ragged in (
              case.split(',') for case in cases)]


def uneven(text):
  """Names the collectives that some devices may reach and others not.

  These are in a branch of a condition, or in a loop of unknown length.
  """
  program = hlo_text.parse(text)
  found = set()

  def visit(name, inside):
    for x in program.computations[name].instructions.values():
      if inside and _COLLECTIVES.match(f'{x.op}('):
        found.add(x.name)
      for called in x.called():
        visit(called, inside or x.op == 'conditional' or (
            x.op == 'while' and hlo_text.trips(x, program) is None))
  visit(program.entry, False)
  return sorted(found)


def _rounds(count, group, clients, aggregation, alone, *, ragged):
  config = tiny.get_config()
  config.model.width = 4
  config.aggregation.name = aggregation
  if aggregation in ('fedca', 'fedsc'):
    config.learner.name = config.rule.name = aggregation
  if clients % (count // group):
    config.participation.dropout = 0.5
  if ragged:
    config.optimizer.learning_rate = 0.005  # see multihost_test
    config.participation.stragglers = 0.5
  checks.check(config)
  sizes = [40 * (1 + k * ragged) for k in range(clients)]
  images = np.random.RandomState(0).randint(
      0, 256, (sum(sizes), 8, 8, 3)).astype(np.uint8)
  _, online = prepare.networks_of(config, Dataset(images))
  parts = np.split(np.arange(len(images)), np.cumsum(sizes)[:-1])

  def end(share, each):
    recipe = dataclasses.replace(
        build.recipe(config), devices_per_client=each).with_full_steps([sizes])
    layout = device_mesh.layout(str(share), clients, devices_per_client=each)
    by_client = layout.sharding(device_mesh.BY_CLIENT)
    everywhere = layout.sharding(device_mesh.EVERYWHERE)
    arrays = local_training.client_arrays(
        images, parts + [parts[0][:0]] * (layout.padded - clients), by_client)
    rng = jax.device_put(jax.random.key(1), everywhere)
    server, states = jax.device_put(round_program.init_state(
        recipe, online, np.asarray(arrays.num_examples),
        jax.random.key(1), np.zeros((1, 8, 8, 3), np.float32)),
        (everywhere, by_client))
    one_round = round_program.compile_round(
        recipe, server, states, arrays, rng, layout=layout)
    for _ in range(2):
      with jax.transfer_guard('disallow_explicit'):
        server, states, metrics = one_round(server, states, arrays, rng)
    numbers = jax.tree.map(
        lambda x: np.asarray(x, np.float64),
        (tuple(server), [x[:clients] for x in jax.tree.leaves(states)],
         {name: x[:clients] for name, x in metrics.items()}))
    return numbers, one_round, server, (states, arrays, metrics)
  case = clients, aggregation, config.participation.dropout, ragged
  if case not in alone:
    alone[case] = end(1, 1)[0]
  ended, one_round, server, by_client = end(count, group)
  found = {}
  found['collectives'] = collections.Counter(
      _COLLECTIVES.findall(one_round.as_text()))
  found['uneven'] = uneven(one_round.as_text())
  found['steps'] = ended[2]['steps'].tolist()
  found['rows'] = sorted({
      (len(x.addressable_shards), x.addressable_shards[0].data.shape[0])
      for x in jax.tree.leaves(by_client)})
  found['server rows'] = sorted({
      x.addressable_shards[0].data.shape == x.shape
      for x in jax.tree.leaves(server)})
  found['apart'] = [
      # NumPy's, for which what is not a number is the largest of all.
      float(np.max([np.abs(a - b).max() / (np.abs(b).max() + 1e-30)
                    for a, b in zip(jax.tree.leaves(mine),
                                    jax.tree.leaves(one), strict=True)]))
      for one, mine in zip(alone[case], ended)]
  found['arrived'] = ended[2]['arrived'].tolist()
  return found


def run_all(folder, *orders):
  """Runs tiny runs; returns each final state, or null for a stopped run."""
  class Stopped(Exception):
    """Ends a run after a round, as a kill would."""
  save = checkpoint.Checkpoints.save

  def save_and_stop(self, step, *state):
    save(self, step, *state)
    if step == stop:
      raise Stopped
  checkpoint.Checkpoints.save = save_and_stop
  found = []
  for name, stop, changes in map(json.loads, orders):
    config = tiny.get_config()
    # Faster, training would be chaotic: see multihost_test.
    config.optimizer.learning_rate = 0.005
    config.update(changes)
    try:
      trained = train.train(config, f'{folder}/{name}',
                            console=Console(quiet=True))
    except Stopped:
      found.append(None)
    else:
      found.append([np.asarray(x).ravel().tolist()
                    for x in jax.tree.leaves(trained.federation)])
  return found


if __name__ == '__main__':
  print(json.dumps({'rounds': rounds, 'runs': run_all}[sys.argv[1]](
      *sys.argv[2:])))
