"""The same answer: from one seed, however, wherever and in how many goes.

On one device all ways must agree to the bit. Where sums are taken in another
order (clients side by side, clients or batches spread over devices) that cannot
be. How far two right answers may then be apart is not guessed but measured and
derived:

A step rounds each parameter, so it moves the network by up to eps |w| from
where exact arithmetic would. Sums of n terms in another order differ by some
eps sqrt(n), rounding being as good as random. Such a step is a push, and what
training makes of one push of eps |w| is measured: the seed's run once more,
from a network of which each number is off by a random eps. If that ends D away,
then S steps, each of which pushes by up to sqrt(n) eps, end up to

  bound = sqrt(S) sqrt(n) D

away, as pushes add up like random ones. n is the longest sum.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
from rich.console import Console

from fedu_jax.models import networks
from fedu_jax.training import train
from tests.faults import attack
from tests.faults import ends
from tests.faults import tiny

CONFIG = 'tests/faults/tiny.py'
_ROUNDS, _CLIENTS = 3, 5
# Two steps a round; the first layer adds up all numbers of an image.
_STEPS, _TERMS = 2 * _ROUNDS, 8 * 8 * 3

BROKEN = {
    'twice in a process': attack.Break(
        'fedu_jax/training/engine/clients_on_device.py',
        'rng = jax.random.key(start.seed)',
        "rng = jax.random.key(__import__('time').time_ns() % 2**31)"),
    'in two processes': attack.Break(
        'fedu_jax/training/prepare.py',
        'rng = jax.random.fold_in(jax.random.key(config.seed), '
        'round_program.INIT)',
        "rng = jax.random.fold_in(jax.random.key(hash('seed') % 2**31), "
        'round_program.INIT)'),
    'stores and slices': attack.Break(
        'fedu_jax/training/engine/clients_streamed.py',
        "y[where], mode='drop'), rows, trained)",
        "x[to], mode='drop'), rows, trained)"),
    'a stop in between': attack.Break(
        'fedu_jax/runtime/checkpoint.py',
        '      return self._handler.restore(self._state(), args='
        'ocp.args.StandardRestore(\n          abstract, strict=False))',
        '      got = self._handler.restore(self._state(), args='
        'ocp.args.StandardRestore(\n          abstract, strict=False))\n'
        '      return got._replace(rng=jax.random.key(99)) if hasattr(\n'
        "          got, 'rng') else got"),
    'side by side': attack.Break(
        'fedu_jax/core/rounds.py', '    return jax.vmap(fn)\n',
        '    return jax.vmap(lambda *row: fn(*row[:-1], jax.random.key(0)))\n'),
    'spread over devices': attack.Break(
        'fedu_jax/training/engine/round_program.py',
        'ids += jax.lax.axis_index(axis) * len(ids)', 'ids += 0'),
}


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Runs all rows."""
  attacks = _twice, _processes, _stores, _stops
  found = {row: _tally(some(order)) for row, some in zip(BROKEN, attacks)
           if order.wants(row)}
  others = list(BROKEN)[len(attacks):]
  return found | (_orders_of_summation(order)
                  if any(map(order.wants, others)) else {})


def _tally(found: list[tuple[str, str]]) -> attack.Outcome:
  wrong = [f'{name}: {complaint}' for name, complaint in found if complaint]
  return attack.Outcome(len(found), len(wrong), wrong[0] if wrong else '')


def _train(folder: pathlib.Path, *, stop: int = 0,
           **changes: Any) -> pathlib.Path:
  """Runs in this process; returns the folder.

  Args:
    folder: the run's.
    stop: ends the run as the line of this round is printed; 0, not.
    **changes: of the config.
  """
  config = tiny.get_config()
  config.rounds = _ROUNDS
  config.update_from_flattened_dict(changes)
  console = _Stopping(stop)
  with contextlib.suppress(_Stopped):
    train.train(config, str(folder), console=console)
  return folder


class _Stopped(Exception):
  """Ends a run in this process."""


class _Stopping(Console):
  """A quiet console that ends the run with a round's line."""

  def __init__(self, stop: int):
    super().__init__(quiet=True)
    self._line = f'round {stop:>4}  '

  def print(self, *args, **choices) -> None:
    if args and str(args[0]).startswith(self._line):
      raise _Stopped


def _differ(*folders: pathlib.Path) -> str:
  """Returns in what two runs differ by a bit, with any store; '' if nothing."""
  return ends.difference(*({'metrics.jsonl': ends.rows(folder)} | {
      name: (x.dtype.name, x.shape, x.tobytes())
      for name, x in ends.networks(folder).items()} for folder in folders))


def _twice(order: attack.Order) -> list[tuple[str, str]]:
  return [('the second time', _differ(
      *(_train(order.folder / name) for name in ('one', 'other'))))]


def _processes(order: attack.Order) -> list[tuple[str, str]]:
  """Compares processes: compiled anew or loaded, other hash seeds."""
  found: list[dict[str, Any]] = []
  for i, cache in enumerate('ab' if order.short else 'aaab'):
    folder = order.folder / f'process{i}'
    done = attack.run_main(
        folder, config=CONFIG, PYTHONHASHSEED=str(i),
        JAX_COMPILATION_CACHE_DIR=str(order.folder / f'cache {cache}'))
    if done.returncode:
      return [('a process', done.stderr[-300:])]
    found.append(ends.of(folder))
  return [(f'process {i}', ends.difference(found[0], end))
          for i, end in enumerate(found[1:], 1)]


def _stores(order: attack.Order) -> list[tuple[str, str]]:
  cohort = _train(order.folder / 'device', cohort=3, store='device')
  cases: list[dict[str, Any]] = [
      {'store': 'host'}, {'store': 'disk', 'clients_per_device': 2}]
  if not order.short:
    cases += [{'store': store, 'clients_per_device': i}
              for store in ('host', 'disk') for i in (1, 2, 3)]
  return [(str(changes), _differ(cohort, _train(
      order.folder / f'store{i}', cohort=3, **changes)))
      for i, changes in enumerate(cases)]


def _stops(order: attack.Order) -> list[tuple[str, str]]:
  """Ends runs before a checkpoint, once and after each round, and resumes."""
  found = []
  whole = _train(order.folder / 'all')
  cohort = _train(order.folder / 'cohort', cohort=3)
  cases: list[tuple[str, Any, dict[str, Any]]] = [
      ('device', whole, {}), ('host', cohort, {'store': 'host', 'cohort': 3}),
      ('disk', cohort, {'store': 'disk', 'cohort': 3})]
  for name, want, changes in cases[:2] if order.short else cases:
    stops = [[2]] if order.short else [[1], [2], [3], [1, 2, 3], [2, 2]]
    for at in stops:
      folder = order.folder / '-'.join([name, *map(str, at)])
      for stop in at:
        _train(folder, stop=stop, **changes)
      found.append((f'{name}, after {at}',
                    _differ(want, _train(folder, **changes))))
  return found


# --- other orders of summation ---------------------------------------------


def _orders_of_summation(order: attack.Order) -> dict[str, attack.Outcome]:
  """Compares the ways of a process with four devices."""
  done = subprocess.run(
      [sys.executable, '-m', 'tests.faults.same', str(order.folder),
       'short' if order.short else 'long'], cwd=attack.ROOT, text=True,
      capture_output=True, check=False, env={
          **os.environ, 'PYTHONPATH': str(attack.ROOT),
          'XLA_FLAGS': '--xla_force_host_platform_device_count=4'})
  if done.returncode:
    failed = attack.Outcome(1, 1, done.stderr[-300:])
    return {'side by side': failed, 'spread over devices': failed}
  found = json.loads(done.stdout)
  order.say(done.stdout)
  bound = found['bound']
  outcomes = {}
  for row, cases in found['apart'].items():
    lost = sum(not x <= bound for x in cases.values())
    lost += not bound < 0.01 * found['moved']  # or it would bind nothing
    worst = max(cases, key=lambda name: cases[name])
    outcomes[row] = attack.Outcome(
        len(cases), lost, f'at most {cases[worst]:.1e} apart ({worst}), within '
        f'{bound:.1e}; the last two rounds moved {found["moved"]:.1e}')
  return outcomes


def _measure(folder: pathlib.Path, short: bool) -> dict[str, Any]:
  """Runs all ways in this process, which has four devices."""
  draw = networks.init_online

  def end(name, **changes):
    return _flat(ends.networks(_train(folder / name, **changes)))

  def pushed(seed):
    def init(*args):
      noise = np.random.RandomState(seed)
      eps = np.finfo(np.float32).eps
      return jax.tree.map(lambda x: x * (1 + eps * noise.uniform(
          -1, 1, x.shape)).astype(x.dtype), draw(*args))
    networks.init_online = init
    try:
      return end(f'pushed {seed}', devices='1')
    finally:
      networks.init_online = draw
  one = end('one', devices='1')
  drift = max(np.linalg.norm(pushed(i) - one) for i in range(2 if short else 8))
  others: dict[str, dict[str, dict[str, Any]]] = {
      'side by side': {'vmap': {'devices': '1', 'execution': 'vmap'}},
      'spread over devices': {
          '4 devices': {'devices': '4'},
          '2 a client': {'devices': '4', 'devices_per_client': 2}}}
  if not short:
    others['spread over devices'] |= {
        '2 devices': {'devices': '2'},
        '4 a client': {'devices': '4', 'devices_per_client': 4},
        '2 devices, slices': {'devices': '2', 'clients_per_device': 1,
                              'store': 'host'}}
    others['side by side'] |= {
        'vmap, 2 devices': {'devices': '2', 'execution': 'vmap'}}
  apart = {row: {name: float(np.linalg.norm(end(name, **changes) - one))
                 for name, changes in cases.items()}
           for row, cases in others.items()}
  return {'apart': apart, 'push': float(drift),
          'bound': float((_STEPS * _TERMS)**0.5 * drift),
          'moved': float(np.linalg.norm(
              one - end('first', devices='1', rounds=1)))}


def _flat(found: dict[str, np.ndarray]) -> np.ndarray:
  """Returns all numbers of the server and clients that are no counts."""
  return np.concatenate([
      np.ravel(x).astype(np.float64) for _, x in sorted(found.items())
      if x.dtype.kind == 'f'])


if __name__ == '__main__':
  print(json.dumps(_measure(pathlib.Path(sys.argv[1]), sys.argv[2] == 'short')))
