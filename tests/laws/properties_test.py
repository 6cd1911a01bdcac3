"""Properties that hypothesis tries to break: means, drifts, draws."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.core import aggregation
from fedu_jax.core import participation
from fedu_jax.core import rounds
from fedu_jax.core import trees
from fedu_jax.core.state import ServerState
from fedu_jax.data import partition
from fedu_jax.runtime.errors import BadInput
from tests.helpers import small

EPS = np.finfo(np.float32).eps
few = settings(max_examples=40, deadline=None)
counts = st.lists(st.integers(0, 50_000), min_size=1, max_size=6).filter(any)
seeds = st.integers(0, 9999)


def rows_of(count, seed):
  """Draws stacked trees with numbers of all sizes."""
  draw = np.random.RandomState(seed)
  return {'a': (draw.randn(count, 3) * 10.**draw.randint(-3, 4, (count, 1))
                ).astype(np.float32), 'b': draw.randn(count).astype(np.float32)}


weighted_sum = jax.jit(trees.weighted_sum)


@jax.jit
def mean(rows, weights):
  return trees.mean(trees.weighted_sum(rows, weights),
                    jax.tree.map(lambda x: jnp.zeros_like(x[0]), rows))


def check_means(a, b, rows):
  """Checks means to the rounding of K products, K sums and a quotient.

  Each mean is off by at most half an eps of the largest row.
  """
  for x, y, each in zip(*map(jax.tree.leaves, (a, b, rows)), strict=True):
    bound = (2 * len(each) + 1) * EPS * np.abs(each).max()
    assert np.abs(x - y).max() <= bound


# --- aggregation -----------------------------------------------------------


@given(counts, seeds)
@few
def test_the_order_of_uploads_matters_to_rounding_only(sizes, seed):
  rows = rows_of(len(sizes), seed)
  order = np.random.RandomState(seed).permutation(len(sizes))
  weights = np.array(sizes, np.float32)
  check_means(mean(trees.take(rows, order), weights[order]),
              mean(rows, weights), rows)


@given(counts, seeds, st.integers(-10, 10))
@few
def test_only_the_ratio_of_weights_matters(sizes, seed, power):
  """Powers of two scale without rounding, so the bits are the same."""
  rows = rows_of(len(sizes), seed)
  weights = np.array(sizes, np.float32)
  small.check_equal(mean(rows, weights * np.float32(2.)**power),
                    mean(rows, weights))


@given(counts, seeds)
@few
def test_the_mean_lies_among_its_rows_and_moves_with_them(sizes, seed):
  rows = rows_of(len(sizes), seed)
  weights = np.array(sizes, np.float32)
  found = mean(rows, weights)
  for x, each in zip(*map(jax.tree.leaves, (found, rows)), strict=True):
    slack = (2 * len(each) + 1) * EPS * np.abs(each).max()
    weighed = each[weights > 0]
    assert (x >= weighed.min(0) - slack).all()
    assert (x <= weighed.max(0) + slack).all()
  # Exactly, since a factor of two does not round.
  small.check_equal(mean(jax.tree.map(lambda x: 2 * x, rows), weights),
                    jax.tree.map(lambda x: 2 * x, found))


@given(counts, seeds, st.sampled_from([np.nan, np.inf, -np.inf, 3e38]))
@few
def test_what_weighs_nothing_is_never_read(sizes, seed, value):
  rows = rows_of(len(sizes), seed)
  weights = np.array(sizes, np.float32)
  spoilt = jax.tree.map(
      lambda x: np.where((weights > 0).reshape(-1, *[1] * (x.ndim - 1)), x,
                         np.float32(value)), rows)
  small.check_equal(mean(spoilt, weights), mean(rows, weights))


@given(counts, seeds, st.integers(1, 5))
@few
def test_sums_may_be_taken_in_slices(sizes, seed, slice_):
  """The bits are the same. Cohorts in slices rely on it."""
  rows = rows_of(len(sizes), seed)
  weights = np.array(sizes, np.float32)
  sums = None
  for i in range(0, len(sizes), slice_):
    some = slice(i, i + slice_)
    sums = weighted_sum(jax.tree.map(lambda x, s=some: x[s], rows),
                        weights[some], start=sums)
  small.check_equal(sums, weighted_sum(rows, weights))


@pytest.mark.parametrize('name', ['fedavg', 'fedavg_target', 'ldawa'])
def test_an_aggregation_minds_neither_order_nor_who_is_missing(name):
  """Another order of clients, and a weight of 0 or a client less, change
  nothing.
  """
  aggregate = jax.jit(getattr(aggregation, name))
  _, clients, _ = small.federation()
  clients = small.noise(clients)._replace(num_examples=clients.num_examples)
  server = ServerState(small.noise(small.online(), 5), jnp.int32(0))
  want = aggregate(server, clients)
  small.check_close(aggregate(server, trees.take(clients, np.array([2, 0, 1]))),
                    want, rtol=1e-5, atol=1e-6)
  nobody = clients._replace(
      num_examples=clients.num_examples.at[1].set(0))
  small.check_equal(
      aggregate(server, nobody),
      aggregate(server, trees.take(clients, np.array([0, 2]))))


# --- divergence ------------------------------------------------------------


def encoder(seed):
  return small.noise(small.online(), seed).encoder.params


def metrics_of(a, b):
  """Returns the mean distance of layers, and the root of the squared one."""
  return np.array([trees.conv_distance(a, b),
                   jnp.sqrt(trees.squared_distance(a, b))])


@given(seeds, seeds, seeds, st.floats(1 / 8, 8))
@settings(max_examples=20, deadline=None)
def test_divergences_are_distances(i, j, k, factor):
  """Zero to itself, symmetric, proportional, and longer by a detour."""
  a, b, c = map(encoder, (i, j, k))
  assert (metrics_of(a, a) == 0).all()
  np.testing.assert_array_equal(metrics_of(a, b), metrics_of(b, a))
  assert (metrics_of(a, b) > 0).all() or i == j
  assert (metrics_of(a, c)
          <= (metrics_of(a, b) + metrics_of(b, c)) * (1 + 1e-5)).all()
  scaled = [jax.tree.map(lambda x: np.float32(factor) * x, t) for t in (a, b)]
  np.testing.assert_allclose(metrics_of(*scaled), factor * metrics_of(a, b),
                             rtol=1e-4)


# --- DAPU ------------------------------------------------------------------


@functools.cache
def nets_apart():
  _, clients, _ = small.federation(sizes=(8,))
  client = small.client(0, small.noise(clients))
  return (client._replace(num_examples=jnp.float32(8),
                          last_round=jnp.int32(0), uploaded=jnp.array(True)),
          ServerState(small.noise(small.online(), 9), jnp.int32(1)))


drifts = st.floats(0, 2, width=32)


@given(drifts, drifts, drifts)
@few
def test_dapu_is_monotone_and_idempotent(drift, one, other):
  """A client that takes the server's predictor takes it at any higher
  threshold.
  """
  client, server = nets_apart()
  client = client._replace(divergence=jnp.float32(drift))
  took = {}
  for threshold in sorted((one, other)):
    once = _dapu(client, server, jnp.float32(threshold))
    took[threshold] = bool(trees.equal(once.online.predictor,
                                       server.online.predictor))
    assert took[threshold] == (np.float32(drift) < np.float32(threshold))
    small.check_equal(_dapu(once, server, jnp.float32(threshold)), once)
  low, high = min(took), max(took)
  assert took[low] <= took[high]


@jax.jit
def _dapu(client, server, threshold):
  return fedu_jax.dapu(client, server, threshold=threshold)


# --- sampling --------------------------------------------------------------


@given(st.sampled_from(['uniform', 'by_size']), st.integers(1, 12),
       st.integers(1, 12), seeds)
@few
def test_a_cohort_is_drawn_without_repetition(name, k, size, seed):
  size = min(size, k)
  draw = lambda: getattr(participation, name)(
      jax.random.key(seed), jnp.arange(1., k + 1), size=size)
  ids = np.asarray(draw())
  assert ids.shape == (size,) and (np.diff(ids) > 0).all()
  assert ids.min() >= 0 and ids.max() < k
  np.testing.assert_array_equal(draw(), ids)


# --- partitions ------------------------------------------------------------

LABELS = st.lists(st.integers(0, 9), min_size=1, max_size=120).map(np.array)


@given(LABELS, st.integers(1, 6), st.integers(0, 8),
       st.floats(0.05, 50), seeds)
@few
def test_dirichlet_gives_all_and_enough_or_says_so(labels, k, least, alpha,
                                                   seed):
  """Each example is used once, and each client has enough. Classes may be
  missing.
  """
  draw = lambda: partition.dirichlet(
      labels, k, np.random.RandomState(seed), alpha=alpha, min_examples=least)
  try:
    parts = draw()
  except BadInput as error:
    assert f'at least {least}' in str(error)
    return
  assert sorted(np.concatenate(parts)) == list(range(len(labels)))
  assert min(map(len, parts)) >= least
  for a, b in zip(parts, draw(), strict=True):
    np.testing.assert_array_equal(a, b)


@given(LABELS, st.integers(1, 8), st.integers(1, 10), seeds)
@few
def test_by_class_gives_a_class_that_is_missing_to_nobody(labels, k, per, seed):
  per = min(per, len(set(labels)))
  draw = lambda: partition.by_class(
      labels, k, np.random.RandomState(seed), classes_per_client=per)
  parts = draw()
  dealt = np.concatenate(parts)
  assert len(set(dealt)) == len(dealt) and set(dealt) <= set(
      range(len(labels)))
  for a, b in zip(parts, draw(), strict=True):
    np.testing.assert_array_equal(a, b)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array))
@few
def test_natural_gives_each_example_to_its_owner(owners):
  k = owners.max() + 1
  parts = partition.natural(owners, k, np.random.RandomState(0))
  assert sorted(np.concatenate(parts)) == list(range(len(owners)))
  assert all((owners[part] == i).all() for i, part in enumerate(parts))


# --- soundness -------------------------------------------------------------


@given(st.lists(st.floats(width=32), min_size=1, max_size=5), seeds)
@settings(max_examples=100, deadline=None)
def test_what_is_sound(numbers, seed):
  """A tree is sound if and only if each array has a finite sum of squares."""
  tree = {'x': np.array(numbers, np.float32), 'n': np.int32(seed)}
  with np.errstate(all='ignore'):
    squares = np.square(tree['x']).sum()
  assert bool(trees.sound(tree)) == bool(np.isfinite(squares))
  assert bool(trees.sound({'n': tree['n']}))


@pytest.mark.parametrize('arrived, sound, want', [
    (None, [1, 0, 1], [8, 0, 9]), ([1, 1, 0], [1, 0, 1], [8, 0, 0]),
    ([0, 1, 1], [1, 1, 1], [0, 12, 9])])
def test_who_counts(arrived, sound, want):
  _, clients, _ = small.federation()
  sound = jnp.array(sound, bool)
  kept, seen = rounds.uploads(
      clients, None if arrived is None else jnp.array(arrived, bool), sound)
  assert seen.num_examples.tolist() == want
  assert kept.num_examples.tolist() == [8, 12, 9]
  assert kept.uploaded.tolist() == [x > 0 for x in want]
