"""Rounds, as pure functions, with a client of wrong numbers."""

from collections.abc import Iterator
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fedu_jax
from fedu_jax.core import rounds
from fedu_jax.core.state import Batches
from fedu_jax.learners import byol
from fedu_jax.learners import moco
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import round_program
from tests.faults import attack
from tests.faults import tiny

VALUES = (np.nan, np.inf, -np.inf, 1e30)
WHO = 1  # is ill


class _Rounds:
  """Rounds of three clients, all by one compiled program."""

  def __init__(self, execution: str, learner: str = 'byol'):
    config = tiny.get_config()
    config.clients, config.learner.name = 3, learner
    config.learner.queue_size = 4 * tiny.BATCH
    for name in ('ill', 'value', 'at'):
      del config.learner[name]
    checks.check(config)
    draw = np.random.RandomState(0)
    images = jnp.asarray(draw.rand(60, 8, 8, 3), jnp.float32)
    parts = tiny.ladder(np.zeros(60), 3, draw)
    nets = tiny.nets()
    online = fedu_jax.init_online(nets, jax.random.key(0), images[:2])
    self.arrays = fedu_jax.client_arrays(np.asarray(images), parts)
    self.rng = jax.random.key(1)
    self.server, self.clients = round_program.init_state(
        build.recipe(config), online, self.arrays.num_examples, self.rng,
        images[:1])
    made = moco.moco(
        nets, _noise, make_tx=_sgd, queue_size=config.learner.queue_size
    ) if learner == 'moco' else byol.byol(nets, _noise, make_tx=_sgd)
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
    """Runs a round, on NumPy arrays; client `lost` loses its upload."""
    return jax.device_get(self.one_round(
        server, clients, self.arrays.images if images is None else images,
        np.arange(3) != lost))


def equal(a: Any, b: Any) -> bool:
  """Returns whether two trees have the same bits."""
  return all(np.array_equal(x, y) for x, y in zip(
      jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def sound(tree: Any) -> bool:
  """Returns whether all numbers of a tree can be squared."""
  with np.errstate(all='ignore'):
    return all(np.isfinite(np.square(x).sum()) for x in jax.tree.leaves(tree))


def _noise(images, rng):
  return images + 0.1 * jax.random.normal(rng, images.shape)


def _sgd(round_):
  return optax.sgd(0.05 / (1 + round_), momentum=0.9)


def attack_images(order: attack.Order) -> Iterator[tuple[str, str]]:
  """Attacks the pixels of one client."""
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
  """Returns what is wrong after a round in which client WHO was ill.

  `start` is the server and clients before it, `found` its result, and `want`
  the result if the client had been well and its upload lost.
  """
  server, clients, metrics = found
  if metrics['sound'].tolist() != [k != WHO for k in range(3)]:
    return f'sound are {metrics["sound"].tolist()}'
  if not equal(server, want[0]):
    return 'the mean is not that of the others'
  for k in range(3):
    mine, theirs = (jax.tree.map(lambda x: x[k], tree)
                    for tree in (clients, want[1]))
    if k != WHO and not equal(mine, theirs):
      return 'other clients changed'
  mine = jax.tree.map(lambda x: x[WHO], clients)
  if not (equal(mine.online, start[0].online)
          and equal(mine.target, start[0].online.encoder)
          and mine.divergence == 0 and not mine.uploaded):
    return 'it was not returned to the global model'
  return _goes_on(one_round, server, clients)


def _goes_on(one_round, server, clients):
  """Returns what is wrong with the next round, in which all must be well."""
  if not sound((server, clients)):
    return 'something is left that is not finite'
  server, clients, metrics = one_round(server, clients)
  if not (metrics['sound'].all() and sound((server, clients))):
    return f'in the next round sound are {metrics["sound"].tolist()}'
  return ''


def attack_clients(order: attack.Order) -> Iterator[tuple[str, str]]:
  """Attacks each kind of array that a client keeps, before a round."""
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
      elif not sound(found[:2]):
        complaint = 'something is left that is not finite'
      elif 'online' in name and 'encoder' in name and not equal(
          found[0], well[0]):
        complaint = 'what the download replaces changed the mean'
      yield f'{value:g} in {name}', complaint
