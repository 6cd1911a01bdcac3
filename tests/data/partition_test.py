"""Partitions: the released code's assignment, no loss, a bounded search."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from fedu_jax.data import partition
from fedu_jax.runtime.errors import BadInput

LABELS = np.tile(np.arange(10), 500)  # 5,000 examples, 500 of each class


def rng(seed=0):
  return np.random.RandomState(seed)


def held(parts):
  return [set(LABELS[part]) for part in parts]


def test_two_of_ten_classes():
  parts = partition.by_class(LABELS, 5, rng(), classes_per_client=2)
  assert held(parts) == [{2 * i, 2 * i + 1} for i in range(5)]
  assert [len(part) for part in parts] == [1000] * 5


def test_twenty_clients_share_class_pairs():
  """With K=20, clients i, i+5, i+10 and i+15 share a pair, a quarter each."""
  parts = partition.by_class(LABELS, 20, rng(), classes_per_client=2)
  assert held(parts) == [{2 * (i % 5), 2 * (i % 5) + 1} for i in range(20)]
  assert {len(part) for part in parts} == {250}


def test_four_classes_a_client():
  parts = partition.by_class(LABELS, 5, rng(), classes_per_client=4)
  assert held(parts) == [{0, 1, 2, 3}, {4, 5, 6, 7}, {0, 1, 8, 9},
                         {2, 3, 4, 5}, {6, 7, 8, 9}]


def test_classes_are_the_labels_that_occur():
  """Labels that start at 1 or have gaps give as many classes as labels from 0.
  """
  want = partition.by_class(LABELS, 5, rng(), classes_per_client=2)
  for labels in (LABELS + 1, 7 * LABELS + 3):
    got = partition.by_class(labels, 5, rng(), classes_per_client=2)
    assert [len(set(labels[part])) for part in got] == [2] * 5
    assert all((a == b).all() for a, b in zip(got, want))
  with pytest.raises(BadInput, match='has 10 classes: choose 1 to 10'):
    partition.by_class(LABELS + 1, 5, rng(), classes_per_client=11)


def test_by_class_draws_what_the_reference_draws():
  """The same indices: classes are shuffled one after the other, by the global
  RNG.
  """
  labels = np.random.RandomState(1).randint(0, 3, 50)
  np.random.seed(0)
  cut = []
  for c in range(3):  # 3 clients of 2 of 3 classes: 2 parts each, small first
    index = np.where(labels == c)[0].tolist()
    np.random.shuffle(index)
    half = len(index) // 2
    cut.append([index[:half], index[half:]])
  want = [cut[0][0] + cut[1][0], cut[2][0] + cut[0][1], cut[1][1] + cut[2][1]]
  got = partition.by_class(labels, 3, rng(0), classes_per_client=2)
  assert [part.tolist() for part in got] == want


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200),
       st.integers(1, 9), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_by_class_is_disjoint_and_holds_few_classes(labels, k, per, seed):
  labels = np.array(labels)
  classes = len(set(labels))
  if per > classes:
    with pytest.raises(BadInput, match='classes_per_client'):
      partition.by_class(labels, k, rng(seed), classes_per_client=per)
    return
  parts = partition.by_class(labels, k, rng(seed), classes_per_client=per)
  together = np.concatenate(parts)
  assert len(parts) == k and len(set(together)) == len(together)
  assert all(len(set(labels[part])) <= per for part in parts)
  if (k * per) % classes == 0:  # every part of every class is handed out
    assert sorted(together) == list(range(len(labels)))


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_iid_deals_everything_out_equally(n, k, seed):
  parts = partition.iid(np.zeros(n, int), k, rng(seed))
  assert sorted(np.concatenate(parts)) == list(range(n))
  sizes = [len(part) for part in parts]
  assert max(sizes) - min(sizes) <= 1


@given(st.floats(0.05, 100), st.integers(1, 10), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_dirichlet_deals_everything_out(alpha, k, seed):
  parts = partition.dirichlet(LABELS, k, rng(seed), alpha=alpha,
                              min_examples=0)
  assert sorted(np.concatenate(parts)) == list(range(len(LABELS)))


def test_dirichlet_is_more_even_with_a_larger_alpha():
  def spread(alpha):
    parts = partition.dirichlet(LABELS, 5, rng(), alpha=alpha)
    counts = [np.bincount(LABELS[part], minlength=10) for part in parts]
    return np.std(counts)
  assert spread(0.1) > 2 * spread(1) > 4 * spread(100)


@pytest.mark.parametrize('seed', range(3))
def test_dirichlet_gives_up_in_bounded_time(seed):
  """Alpha 0.01 with 100 clients has no solution, and one line says so."""
  began = time.time()
  with pytest.raises(BadInput) as error:
    partition.dirichlet(LABELS, 100, rng(seed), alpha=0.01)
  assert time.time() - began < 30
  assert '100 draws' in str(error.value) and 'raise partition.alpha' in str(
      error.value) and '\n' not in str(error.value)


def test_dirichlet_alpha_001_without_a_minimum():
  parts = partition.dirichlet(LABELS, 100, rng(), alpha=0.01, min_examples=0)
  assert len(parts) == 100
  assert sorted(np.concatenate(parts)) == list(range(len(LABELS)))


def test_natural_keeps_owners():
  owners = np.array([0, 1, 1, 2, 0])
  parts = partition.natural(owners, 3, rng())
  assert [part.tolist() for part in parts] == [[0, 4], [1, 2], [3]]
  with pytest.raises(BadInput, match='--config.clients=3'):
    partition.natural(owners, 5, rng())


def test_the_seed_decides():
  a, b, c = (partition.by_class(LABELS, 20, rng(s), classes_per_client=2)
             for s in (0, 0, 1))
  assert all((x == y).all() for x, y in zip(a, b))
  assert any((x != y).any() for x, y in zip(a, c))
