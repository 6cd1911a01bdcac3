"""Every program of the product runs `core.rounds.run_round`.

The recipe is made in plain Python. Its clients add the mean pixel to a weight.
"""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.core import aggregation
from fedu_jax.core import rounds
from fedu_jax.core import trees
from fedu_jax.core import update_rules
from fedu_jax.core.method import Aggregation, UpdateRule
from fedu_jax.training.engine import client_store
from fedu_jax.training.engine import clients_in_chunks
from fedu_jax.training.engine import clients_on_device
from fedu_jax.training.engine import clients_streamed
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine.federation import Start
from fedu_jax.training.engine.recipe import Recipe
from tests.helpers import small

SIZES = [8, 12, 9, 4]

# Nothing is saved here.
UNSAVED = types.SimpleNamespace(restore=lambda _: None)


def median(server, clients):
  """An aggregation that needs all clients at once."""
  return server._replace(
      online=jax.tree.map(lambda x: jnp.median(x, 0), clients.online),
      round=server.round + 1)


def recipe_of(**changes):
  return dataclasses.replace(Recipe(
      nets=small.NETS, learner=small.counting_learner(),
      rule=UpdateRule(functools.partial(update_rules.dapu, threshold=0.4)),
      aggregation=Aggregation(aggregation.fedavg), rounds=2, local_epochs=1,
      batch_size=small.BATCH), **changes)


def start():
  parts = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
  return Start(small.online(), parts, seed=3)


def on_device(recipe, mesh=None):
  return clients_on_device.ClientsOnDevice(
      [start()], [UNSAVED], recipe=recipe, examples=small.images(sum(SIZES)),
      layout=device_mesh.Layout(len(SIZES), mesh))


def streamed(recipe, at_once, mesh=None):
  return clients_streamed.ClientsStreamed(
      start(), UNSAVED, recipe=recipe, examples=small.images(sum(SIZES)),
      layout=device_mesh.Layout(at_once, mesh),
      make_store=client_store.InMemory)


def in_chunks(recipe, length=2, mesh=None, at_once=1):
  return clients_in_chunks.ClientsInChunks(
      start(), UNSAVED, recipe=recipe, examples=small.images(sum(SIZES)),
      layout=device_mesh.Layout(at_once, mesh),
      make_store=client_store.InMemory, length=length)


def on_a_mesh():
  """A mesh of one device; its program is that of any mesh."""
  return jax.make_mesh(
      (1, 1), (device_mesh.AXIS, device_mesh.DATA),
      axis_types=(jax.sharding.AxisType.Auto,) * 2, devices=jax.devices()[:1])


# How the product runs a federation -> what makes its runner of a recipe.
WAYS = {
    'device': on_device,
    'store': lambda recipe: streamed(recipe, len(SIZES)),
    'slices': lambda recipe: streamed(recipe, 2),
    'mesh': lambda recipe: on_device(recipe, on_a_mesh()),
    'slices on a mesh': lambda recipe: streamed(recipe, 2, on_a_mesh()),
    'chunks': in_chunks,
    'chunks on a mesh': lambda recipe: in_chunks(recipe, 2, on_a_mesh())}


def run(federation):
  """Runs both rounds; returns the server's network, all clients, and metrics.
  """
  federation.compile()
  metrics = [federation.advance()[0] for _ in range(2)]
  state = federation.state(0)
  return jax.device_get((federation.online(0), state.clients, metrics))


@functools.cache
def reference(**changes):
  return run(on_device(recipe_of(**changes)))


def test_a_federation_runs_from_plain_python():
  """Two rounds by hand: each client adds its mean pixels to the mean."""
  online, clients, metrics = reference()
  assert clients.last_round.tolist() == [1] * len(SIZES)
  steps = np.array(SIZES) // small.BATCH
  assert metrics[1]['steps'].tolist() == steps.tolist()
  # The learner reports the mean over its steps of what each step adds.
  moved = sum(np.average(row['loss'] * steps, weights=SIZES) for row in metrics)
  before = jax.tree.leaves(small.online().encoder.params)[0]
  after = jax.tree.leaves(online.encoder.params)[0]
  np.testing.assert_allclose(after - before, moved, rtol=1e-4)


@pytest.mark.parametrize('way', ['store', 'slices', 'mesh', 'chunks'])
def test_every_way_gives_the_same_bits(way):
  small.check_equal(run(WAYS[way](recipe_of())), reference())


def test_slices_on_a_mesh_differ_by_rounding():
  """Each slice is summed alone, and then added to the earlier ones."""
  small.check_close(run(WAYS['slices on a mesh'](recipe_of())), reference(),
                    rtol=1e-6)


@pytest.mark.parametrize('way', ['store', 'mesh'])
def test_an_aggregation_without_sums_sees_the_whole_cohort(way):
  changes = {'aggregation': Aggregation(median)}
  small.check_equal(run(WAYS[way](recipe_of(**changes))),
                    run(on_device(recipe_of(**changes))))


def test_a_drawn_cohort_is_the_same_from_a_store():
  changes = {'cohort': 2, 'dropout': 0.5, 'stragglers': 0.5, 'least': 0.1}
  expected = run(on_device(recipe_of(**changes)))
  small.check_equal(run(streamed(recipe_of(**changes), 1)), expected)
  small.check_equal(run(in_chunks(recipe_of(**changes), 1)), expected)


@pytest.mark.parametrize('way', WAYS)
def test_what_breaks_the_round_breaks_the_product(way, monkeypatch):
  """A part of run_round is replaced, and all rounds of the product show it."""
  calls = []
  expected, *_ = reference()  # before anything is replaced
  run_round = rounds.run_round

  def noting(*args, **more):
    calls.append(way)
    return run_round(*args, **more)

  def lost(clients, arrived, sound):
    del arrived, sound
    return clients, clients._replace(num_examples=0 * clients.num_examples)
  monkeypatch.setattr(rounds, 'run_round', noting)
  monkeypatch.setattr(rounds, 'uploads', lost)
  # Other functions make another recipe, which is compiled anew.
  online, clients, _ = run(WAYS[way](recipe_of(
      learner=small.counting_learner())))
  assert set(calls) == {way}
  assert trees.equal(online, small.online())  # nothing came of it
  assert not trees.equal(online, expected)
  assert clients.last_round.tolist() == [1] * len(SIZES)
