"""NaN, infinity and huge values, put where they do harm.

What must follow: the mean is, to the bit, that of the sound clients. The others
are named and reset to the global model. The run goes on, and stops only if no
client is sound, with a network that is sound.
"""

from collections.abc import Callable, Iterator
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console

from fedu_jax.core import trees
from fedu_jax.runtime.errors import Diverged
from fedu_jax.training import train
from tests.faults import attack
from tests.faults import ill_rounds
from tests.faults import tiny

CONFIG = 'tests/faults/tiny.py'

BROKEN = {
    'images of a client': attack.Break(
        'fedu_jax/core/rounds.py',
        'sound = trees.sound((', 'sound = jnp.array(True) | trees.sound(('),
    'state of a client': attack.Break(
        'fedu_jax/core/rounds.py', 'memory=jax.tree.map(kept, client.memory))',
        'memory=client.memory)'),
    'gradients of a client in a store': attack.Break(
        'fedu_jax/core/rounds.py',
        'counts = sound if arrived is None else arrived & sound',
        'counts = jnp.ones_like(sound) if arrived is None else arrived'),
    'gradients of a client on four devices': attack.Break(
        'fedu_jax/training/round_report.py', "'left_out': cohort[~sound]",
        "'left_out': cohort[:0]"),
    'gradients of all clients': attack.Break(
        'fedu_jax/training/round_loop.py', 'if unheard:', 'if False:'),
    'the mean itself': attack.Break(
        'fedu_jax/training/checkpointing.py',
        'if jnp.issubdtype(x.dtype, jnp.inexact)',
        'if jnp.issubdtype(x.dtype, jnp.integer)'),
    'collapse': attack.Break(
        'fedu_jax/evaluation/label_free.py', 'COLLAPSED = 0.12',
        'COLLAPSED = 0.012'),
}


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Runs all rows."""
  attacks = (ill_rounds.attack_images, ill_rounds.attack_clients, _stores,
             _devices, _all, _mean, _collapse)
  return {row: _tally(order, some)
          for row, some in zip(BROKEN, attacks, strict=True)
          if order.wants(row)}


def _tally(order: attack.Order,
           attacks: Callable[[attack.Order], Iterator[tuple[str, str]]]
           ) -> attack.Outcome:
  """Counts attacks; each is a name and what was wrong after it, '' if nothing.
  """
  tried, wrong = 0, []
  for name, complaint in attacks(order):
    tried += 1
    if complaint:
      wrong.append(f'{name}: {complaint}')
      order.say(wrong[-1])
  return attack.Outcome(tried, len(wrong), wrong[0] if wrong else '')


def _config(**changes: Any):
  config = tiny.get_config()
  config.update_from_flattened_dict(changes)
  return config


def _trained(folder: pathlib.Path, **changes: Any) -> list[dict[str, Any]]:
  """Runs a config in this process; returns its rows."""
  config = _config(**changes)
  train.train(config, str(folder), console=Console(quiet=True))
  return _rows(folder)


def _rows(folder: pathlib.Path) -> list[dict[str, Any]]:
  return [json.loads(row) for row in
          (folder / 'metrics.jsonl').read_text().splitlines()]


def _saved(folder: pathlib.Path, round_: int) -> Any:
  """Returns the state after a round, as nested dicts on one device."""
  place = folder / 'checkpoints' / str(round_) / 'default'
  with ocp.StandardCheckpointer() as reader:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    metadata = reader.metadata(place.absolute()).item_metadata
    return reader.restore(place.absolute(), jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        metadata))


def _not_the_mean(folder: pathlib.Path, round_: int, ill: int) -> str:
  """Returns what is wrong with a round's mean in its checkpoint.

  Another program may contract products and sums, and devices add in another
  order: each of K of them is off by at most an eps of the largest upload.
  Client `ill` was ill in the round, and its upload must not count.
  """
  state = _saved(folder, round_)
  clients, server = state['clients'], state['server']
  sizes = clients['num_examples']
  weights = jnp.where(jnp.arange(len(sizes)) == ill, 0, sizes)
  want = trees.mean(trees.weighted_sum(clients['online'], weights),
                    server['online'])
  for a, b, each in zip(*map(jax.tree.leaves, (
      want, server['online'], clients['online'])), strict=True):
    bound = len(sizes) * np.finfo(np.float32).eps * np.abs(each).max()
    if not np.abs(a - b).max() <= bound:  # nor is it a number
      return f'the mean is off by {np.abs(a - b).max()}, above {bound}'
  return ''


def _stores(order):
  """Runs each store: the same to the bit; and each execution."""
  ill, at = 2, 1  # as the config has it
  for value in ('nan',) if order.short else ('nan', 'inf', '-inf', '1e30'):
    ends: list[Any] = []
    cases: list[dict[str, Any]] = [
        {'store': 'device'}, {'store': 'host'},
        {'store': 'disk'}]
    if not order.short:
      cases.append({'store': 'disk', 'clients_per_device': 2})
    for i, changes in enumerate(cases):
      folder = order.folder / f'store {value} {i}'
      rows = _trained(folder, **{
          # Of this seed, client 2 is drawn in that round.
          'learner.value': value, 'cohort': 3, 'seed': 1, **changes})
      ends.append(_saved(folder, 3)['server'])
      complaint = _named(rows, ill, at)
      if not ill_rounds.equal(ends[0], ends[-1]):
        complaint = complaint or 'it ended elsewhere than on the device'
      yield f'{value}, {changes}', complaint
    for execution in ('map',) if order.short else ('map', 'vmap'):
      folder = order.folder / f'{execution} {value}'
      rows = _trained(folder, **{
          'learner.value': value, 'rounds': 2, 'execution': execution})
      yield f'{value}, {execution}', _named(rows, ill, at) or _not_the_mean(
          folder, 2, ill)


def _named(rows: list[dict[str, Any]], ill: int, at: int) -> str:
  """Returns what is wrong with the clients that a run's rows name."""
  want = [[ill] if i == at and ill in row['cohort'] else []
          for i, row in enumerate(rows)]
  if not any(want):
    return 'the client was not called, so nothing was tried'
  found = [row['left_out'] for row in rows]
  return '' if want == found else f'{found} are named, not {want}'


def _devices(order):
  """Runs five clients on four devices, one ill; each in turn in the long form.
  """
  for ill in (2,) if order.short else range(5):
    folder = order.folder / f'devices {ill}'
    done = attack.run_main(
        folder, '--config.rounds=2',
        f'--config.learner.ill=({ill},)', '--config.devices=4', config=CONFIG,
        XLA_FLAGS='--xla_force_host_platform_device_count=4')
    if done.returncode:
      yield f'client {ill}', done.stderr[-300:]
      continue
    complaint = _named(_rows(folder), ill, 1) or _not_the_mean(
        folder, 2, ill)
    if f'left out: client {ill} (not finite)' not in done.stdout:
      complaint = complaint or 'the console does not name it'
    if json.loads((folder / 'summary.json').read_text())['left_out'] != 1:
      complaint = complaint or 'the summary does not count it'
    yield f'client {ill}', complaint


def _all(order):
  """All clients are ill in one round: it stops with a line, and resumes."""
  folder = order.folder / 'all'
  flags = ['--config.learner.ill=()']
  done = attack.run_main(folder, *flags, config=CONFIG)
  complaint = attack.refusal(done, Diverged.code)
  if not complaint and 'in round 2 the numbers of all clients' not in (
      done.stderr):
    complaint = f'it says {done.stderr!r}'
  if not complaint:
    before, after = (_saved(folder, i) for i in (1, 2))
    if not ill_rounds.equal(before['server']['online'],
                            after['server']['online']):
      complaint = 'the network that is saved is not that of before'
    elif not ill_rounds.sound((after['server'], after['clients'])):
      complaint = 'what is saved is not finite'
  yield 'the first start', complaint
  if complaint:
    return
  done = attack.run_main(folder, *flags, config=CONFIG)
  found = [len(row['left_out']) for row in _rows(folder)]
  yield 'the second start', done.stderr if done.returncode else (
      '' if found == [0, 5, 0] else f'left out were {found}')


def _mean(order):
  """An aggregation that makes NaN of sound uploads: nothing of it is saved."""
  folder = order.folder / 'mean'
  for start in ('the first start', 'the second start'):
    done = attack.run_main(folder, config=CONFIG + ':ill_mean')
    complaint = attack.refusal(done, Diverged.code)
    names = sorted(path.name
                   for path in (folder / 'checkpoints').glob('[0-9]*'))
    if not complaint and names != ['1']:
      complaint = f'checkpoints are of rounds {names}'
    elif not complaint and not ill_rounds.sound(_saved(folder, 1)['server']):
      complaint = 'what is saved is not finite'
    yield start, complaint


def _collapse(order):
  """A method that collapses gives one warning; any other gives none."""
  rounds = 6 if order.short else 40
  for name, method, want in (
      ('no stop-gradient, no target of its own at first',
       {'first_target': 'alias', 'ema': False, 'stop_gradient': False}, 1),
      ('BYOL', {}, 0)):
    config = _config(rounds=rounds, local_epochs=4)
    for field in ('ill', 'value', 'at'):
      del config.learner[field]
    config.learner.name, config.rule.name = 'byol', 'global_predictor'
    config.learner.update(method)
    with open(os.devnull, 'w', encoding='utf-8') as nowhere:
      console = Console(record=True, file=nowhere, width=1000)
      train.train(config, str(order.folder / f'collapse {want}'),
                  console=console)
    found = console.export_text().count('have collapsed')
    yield name, '' if found == want else f'{found} warnings, not {want}'
