"""What sharding_test asks of a process that sees eight devices; prints JSON.

  python tests/eight.py rounds <case> ...
  python tests/eight.py runs <folder> <run> ...

A case is <devices>,<devices of a client>,<clients>,<aggregation>; a run is JSON
of [<name>, <the round that it stops after, 0 = never>, {<field>: <value>}].
"""

import collections
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402

from fedu_jax import (  # noqa: E402
    checkpoint, devices, local, program, runs, settings, train)
from fedu_jax.sources import Dataset  # noqa: E402
import tiny  # noqa: E402

_COLLECTIVES = re.compile(
    r'\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)'
    r'(?:-start)?\(')


def rounds(*cases):
  """Two rounds of a small ResNet for each case, on one device and on several.
  """
  alone = {}  # clients and aggregation -> what one device makes of them
  return [_rounds(int(devices_), int(group), int(clients), aggregation, alone)
          for devices_, group, clients, aggregation in (
              case.split(',') for case in cases)]


def _rounds(count, group, clients, aggregation, alone):
  config = tiny.get_config()
  config.model.width = 4
  config.aggregation.name = aggregation
  if aggregation in ('fedca', 'fedsc'):
    config.learner.name = config.rule.name = aggregation
  if clients % (count // group):
    config.participation.dropout = 0.5
  settings.check(config)
  images = np.random.RandomState(0).randint(
      0, 256, (clients * 40, 8, 8, 3)).astype(np.uint8)
  nets, online = runs.networks_of(config, Dataset(images))
  parts = np.split(np.arange(len(images)), clients)

  def end(share, each):
    layout = devices.layout(str(share), clients, devices_per_client=each)
    by_client = layout.sharding(devices.BY_CLIENT)
    everywhere = layout.sharding(devices.EVERYWHERE)
    arrays = local.client_arrays(
        images, parts + [parts[0][:0]] * (layout.padded - clients), by_client)
    rng = jax.device_put(jax.random.key(1), everywhere)
    server, states = jax.device_put(program.init_state(
        config, nets, online, np.asarray(arrays.num_examples),
        jax.random.key(1), np.zeros((1, 8, 8, 3), np.float32)),
        (everywhere, by_client))
    one_round = program.compile_round(
        config, nets, server, states, arrays, rng, layout=layout)
    for _ in range(2):
      with jax.transfer_guard('disallow_explicit'):
        server, states, metrics = one_round(server, states, arrays, rng)
    numbers = jax.tree.map(
        lambda x: np.asarray(x, np.float64),
        (tuple(server), [x[:clients] for x in jax.tree.leaves(states)],
         {name: x[:clients] for name, x in metrics.items()}))
    return numbers, one_round, server, (states, arrays, metrics)
  case = clients, aggregation, config.participation.dropout
  if case not in alone:
    alone[case] = end(1, 1)[0]
  ended, one_round, server, by_client = end(count, group)
  found = {}
  found['collectives'] = collections.Counter(
      _COLLECTIVES.findall(one_round.as_text()))
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
  """Tiny runs, each the state that it ends in, or null where it was stopped."""
  class Stopped(Exception):
    """What ends a run after a round, as a kill would."""
  save = checkpoint.Checkpoints.save

  def save_and_stop(self, step, *state):
    save(self, step, *state)
    if step == stop:
      raise Stopped
  checkpoint.Checkpoints.save = save_and_stop
  found = []
  for name, stop, changes in map(json.loads, orders):
    config = tiny.get_config()
    config.optimizer.learning_rate = 0.005  # or it is chaotic, see hosts_test
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
