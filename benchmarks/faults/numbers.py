"""Numbers gone wrong: NaN, infinity and huge values put where they hurt.

What must come of it: the mean is, to the bit, that of the clients whose numbers
are sound; the others are named and returned to the global model; the run goes
on, and stops only if nobody is left, with a network that is sound.
"""

from collections.abc import Callable, Iterator
import functools
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from rich.console import Console

from benchmarks.faults import attack
from benchmarks.faults import tiny
import fedu_jax
from fedu_jax import learners
from fedu_jax import program
from fedu_jax import rounds
from fedu_jax import settings
from fedu_jax import train
from fedu_jax import trees
from fedu_jax.errors import Diverged
from fedu_jax.state import Batches

VALUES = (np.nan, np.inf, -np.inf, 1e30)
CONFIG = 'benchmarks/faults/tiny.py'
WHO = 1  # is ill, where one client is

BROKEN = {
    'images of a client': attack.Break(
        'fedu_jax/rounds.py',
        'sound = trees.sound((', 'sound = jnp.array(True) | trees.sound(('),
    'state of a client': attack.Break(
        'fedu_jax/rounds.py', 'memory=jax.tree.map(kept, client.memory))',
        'memory=client.memory)'),
    'gradients of a client in a store': attack.Break(
        'fedu_jax/rounds.py',
        'counts = sound if arrived is None else arrived & sound',
        'counts = jnp.ones_like(sound) if arrived is None else arrived'),
    'gradients of a client on four devices': attack.Break(
        'fedu_jax/federation.py', "'left_out': cohort[~sound]",
        "'left_out': cohort[:0]"),
    'gradients of all clients': attack.Break(
        'fedu_jax/federation.py', 'if unheard:', 'if False:'),
    'the mean itself': attack.Break(
        'fedu_jax/federation.py', 'if jnp.issubdtype(x.dtype, jnp.inexact)',
        'if jnp.issubdtype(x.dtype, jnp.integer)'),
    'collapse': attack.Break('fedu_jax/health.py', 'COLLAPSED = 0.12',
                             'COLLAPSED = 0.012'),
}


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Runs all rows."""
  attacks = (_images, _state, _stores, _devices, _all, _mean, _collapse)
  return {row: _tally(order, some)
          for row, some in zip(BROKEN, attacks, strict=True)
          if order.wants(row)}


def _tally(order: attack.Order,
           attacks: Callable[[attack.Order], Iterator[tuple[str, str]]]
           ) -> attack.Outcome:
  """Counts attacks, each a name and what was wrong after it: '' is nothing."""
  tried, wrong = 0, []
  for name, complaint in attacks(order):
    tried += 1
    if complaint:
      wrong.append(f'{name}: {complaint}')
      order.say(wrong[-1])
  return attack.Outcome(tried, len(wrong), wrong[0] if wrong else '')


# --- rounds, as pure functions ---------------------------------------------


class _Rounds:
  """Rounds of three clients, all of one compiled program."""

  def __init__(self, execution: str, learner: str = 'byol'):
    config = tiny.get_config()
    config.clients, config.learner.name = 3, learner
    config.learner.queue_size = 4 * tiny.BATCH
    for name in ('ill', 'value', 'at'):
      del config.learner[name]
    settings.check(config)
    draw = np.random.RandomState(0)
    images = jnp.asarray(draw.rand(60, 8, 8, 3), jnp.float32)
    parts = tiny.ladder(np.zeros(60), 3, draw)
    nets = tiny.nets()
    online = fedu_jax.init_online(nets, jax.random.key(0), images[:2])
    self.arrays = fedu_jax.client_arrays(np.asarray(images), parts)
    self.rng = jax.random.key(1)
    self.server, self.clients = program.init_state(
        config, nets, online, self.arrays.num_examples, self.rng, images[:1])
    made = learners.moco(
        nets, _noise, make_tx=_sgd, queue_size=config.learner.queue_size
    ) if learner == 'moco' else learners.byol(nets, _noise, make_tx=_sgd)
    step = functools.partial(fedu_jax.local_update, learner=made)

    def one_round(server, clients, images, arrived):
      keys = jax.random.split(jax.random.fold_in(self.rng, server.round), 3)
      batches = jax.vmap(lambda arrays, key: fedu_jax.make_batches(
          arrays, key, server.round, batch_size=tiny.BATCH, epochs=1))(
              self.arrays._replace(images=images), keys)
      return rounds.run_round(
          server, clients, Batches(*batches), self.rng, local_update=step,
          aggregate=fedu_jax.aggregate, arrived=arrived, execution=execution,
          rule=functools.partial(fedu_jax.dapu, threshold=0.0))
    self.one_round = jax.jit(one_round)

  def __call__(self, server, clients, images=None, lost=-1):
    """A round, as NumPy's arrays; client `lost` loses its upload."""
    return jax.device_get(self.one_round(
        server, clients, self.arrays.images if images is None else images,
        np.arange(3) != lost))


def _equal(a: Any, b: Any) -> bool:
  """Whether two trees hold the same bits."""
  return all(np.array_equal(x, y) for x, y in zip(
      jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _sound(tree: Any) -> bool:
  """Whether no number of a tree is too large to be squared, or none at all."""
  with np.errstate(all='ignore'):
    return all(np.isfinite(np.square(x).sum()) for x in jax.tree.leaves(tree))


def _noise(images, rng):
  return images + 0.1 * jax.random.normal(rng, images.shape)


def _sgd(round_):
  return optax.sgd(0.05 / (1 + round_), momentum=0.9)


def _images(order):
  """Pixels of one client."""
  for execution in ('map', 'vmap'):
    one_round = _Rounds(execution)
    server, clients, _ = one_round(one_round.server, one_round.clients)
    start = server, clients
    want = one_round(server, clients, lost=WHO)
    images = np.asarray(one_round.arrays.images)
    for value in VALUES:
      for count in (1, 3) if order.short else (1, 2, 10, 10**6):
        ill, size = images.copy(), images[WHO].size
        places = np.random.RandomState(order.seed).choice(
            size, min(count * size // 100, size), replace=False)
        ill[WHO].reshape(-1)[places] = value
        yield (f'{execution}, {value:g} in {len(places)} pixels',
               _after(one_round, start, one_round(server, clients, ill), want))


def _after(one_round, start, found, want):
  """What is wrong after a round in which WHO was ill.

  Args:
    one_round: what ran it.
    start: server and clients before it.
    found: what it returned.
    want: likewise, had the client been well and its upload lost.
  """
  server, clients, metrics = found
  if metrics['sound'].tolist() != [k != WHO for k in range(3)]:
    return f'sound are {metrics["sound"].tolist()}'
  if not _equal(server, want[0]):
    return 'the mean is not that of the others'
  for k in range(3):
    mine, theirs = (jax.tree.map(lambda x: x[k], tree)
                    for tree in (clients, want[1]))
    if k != WHO and not _equal(mine, theirs):
      return 'other clients changed'
  mine = jax.tree.map(lambda x: x[WHO], clients)
  if not (_equal(mine.online, start[0].online)
          and _equal(mine.target, start[0].online.encoder)
          and mine.divergence == 0 and not mine.uploaded):
    return 'it was not returned to the global model'
  return _goes_on(one_round, server, clients)


def _goes_on(one_round, server, clients):
  """What is wrong with a further round, in which all should be well."""
  if not _sound((server, clients)):
    return 'something is left that is not finite'
  server, clients, metrics = one_round(server, clients)
  if not (metrics['sound'].all() and _sound((server, clients))):
    return f'in the next round sound are {metrics["sound"].tolist()}'
  return ''


def _state(order):
  """Each kind of array that a client keeps, before a round."""
  one_round = _Rounds('map', 'moco')
  server, clients, _ = one_round(one_round.server, one_round.clients)
  start = server, clients
  lost = one_round(server, clients, lost=WHO)
  well = one_round(server, clients)
  for value in VALUES[::3] if order.short else VALUES:
    for path, x in jax.tree_util.tree_leaves_with_path(clients):
      name = jax.tree_util.keystr(path)
      # No training changes the size of a client, nor can mend it.
      if x.dtype.kind != 'f' or 'num_examples' in name:
        continue
      spoilt = x.copy()
      spoilt[WHO] = value
      ill = jax.tree_util.tree_map_with_path(
          lambda p, y: spoilt if p == path else y, clients)
      found = one_round(server, ill)
      complaint = ''
      if not found[2]['sound'][WHO]:
        complaint = _after(one_round, start, found, lost)
      elif not _sound(found[:2]):
        complaint = 'something is left that is not finite'
      elif 'online' in name and 'encoder' in name and not _equal(
          found[0], well[0]):
        complaint = 'what the download replaces changed the mean'
      yield f'{value:g} in {name}', complaint


# --- whole runs ------------------------------------------------------------


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
  """The state after a round, as nested dicts on one device."""
  place = folder / 'checkpoints' / str(round_) / 'default'
  with ocp.StandardCheckpointer() as reader:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    metadata = reader.metadata(place.absolute()).item_metadata
    return reader.restore(place.absolute(), jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        metadata))


def _not_the_mean(folder: pathlib.Path, round_: int, ill: int) -> str:
  """What is wrong with a round's mean, as its checkpoint shows it.

  Another program may contract products and sums, and devices add in another
  order: each of K of them is off by an eps of the largest upload at most.

  Args:
    folder: the run's.
    round_: in which client `ill` was ill.
    ill: whose upload must not count.
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
  """A run for each store: the same, to the bit; and for each execution."""
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
      if not _equal(ends[0], ends[-1]):
        complaint = complaint or 'it ended elsewhere than on the device'
      yield f'{value}, {changes}', complaint
    for execution in ('map',) if order.short else ('map', 'vmap'):
      folder = order.folder / f'{execution} {value}'
      rows = _trained(folder, **{
          'learner.value': value, 'rounds': 2, 'execution': execution})
      yield f'{value}, {execution}', _named(rows, ill, at) or _not_the_mean(
          folder, 2, ill)


def _named(rows: list[dict[str, Any]], ill: int, at: int) -> str:
  """What is wrong with who is named in a run's rows."""
  want = [[ill] if i == at and ill in row['cohort'] else []
          for i, row in enumerate(rows)]
  if not any(want):
    return 'the client was not called, so nothing was tried'
  found = [row['left_out'] for row in rows]
  return '' if want == found else f'{found} are named, not {want}'


def _devices(order):
  """Five clients on four devices, one ill: each of them in the long form."""
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
  """Everybody in one round: it stops with a line, and goes on from there."""
  folder = order.folder / 'all'
  flags = ['--config.learner.ill=()']
  done = attack.run_main(folder, *flags, config=CONFIG)
  complaint = attack.refusal(done, Diverged.code)
  if not complaint and 'in round 2 the numbers of all clients' not in (
      done.stderr):
    complaint = f'it says {done.stderr!r}'
  if not complaint:
    before, after = (_saved(folder, i) for i in (1, 2))
    if not _equal(before['server']['online'], after['server']['online']):
      complaint = 'the network that is saved is not that of before'
    elif not _sound((after['server'], after['clients'])):
      complaint = 'what is saved is not finite'
  yield 'the first start', complaint
  if complaint:
    return
  done = attack.run_main(folder, *flags, config=CONFIG)
  found = [len(row['left_out']) for row in _rows(folder)]
  yield 'the second start', done.stderr if done.returncode else (
      '' if found == [0, 5, 0] else f'left out were {found}')


def _mean(order):
  """An aggregation that makes NaN of sound uploads: none of it is saved."""
  folder = order.folder / 'mean'
  for start in ('the first start', 'the second start'):
    done = attack.run_main(folder, config=CONFIG + ':ill_mean')
    complaint = attack.refusal(done, Diverged.code)
    names = sorted(path.name
                   for path in (folder / 'checkpoints').glob('[0-9]*'))
    if not complaint and names != ['1']:
      complaint = f'checkpoints are of rounds {names}'
    elif not complaint and not _sound(_saved(folder, 1)['server']):
      complaint = 'what is saved is not finite'
    yield start, complaint


def _collapse(order):
  """A method that collapses is warned of once; one that does not, never."""
  rounds = 6 if order.short else 40
  for name, method, want in (
      ('no stop-gradient, no target of its own',
       {'ema': False, 'stop_gradient': False}, 1), ('BYOL', {}, 0)):
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
