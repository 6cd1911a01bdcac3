"""Tests of measures that need no labels."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedu_jax.evaluation import geometry
from fedu_jax.evaluation import label_free

HEALTHY = label_free.Measured(effective_rank=20., alignment=0.1,
                              uniformity=-2., spread={'client 0': 0.8})


def rank(z):
  return float(geometry.effective_rank(jnp.asarray(z, jnp.float32)))


def test_the_effective_rank_counts_directions():
  """Equal singular values count fully; a small one counts a little."""
  draw = np.random.RandomState(0)
  u, _, v = np.linalg.svd(draw.randn(60, 12), full_matrices=False)
  u -= u.mean(0)
  u, _ = np.linalg.qr(u)  # columns of mean 0

  def of(singular):
    return rank(3 + u[:, :len(singular)] * singular @ v[:len(singular)])
  assert of([1., 1., 1.]) == pytest.approx(3, abs=1e-3)
  share = np.array([4., 1.]) / 5
  assert of([4., 1.]) == pytest.approx(
      np.exp(-np.sum(share * np.log(share))), abs=1e-3)
  assert of([0.1, 0.1]) == pytest.approx(2, abs=0.01)  # of any scale


def test_the_effective_rank_of_features_that_do_not_vary():
  row = np.random.RandomState(0).randn(1, 8)
  assert rank(np.repeat(row, 50, 0)) == 0
  assert np.isnan(rank(np.full((4, 3), np.nan)))


def test_a_verdict_is_about_the_worst_client():
  """Each measure alone is enough, and NaN counts as collapse."""
  def of(**changed):
    return label_free.verdict(HEALTHY._replace(**changed))
  assert of()[0] == 'healthy'
  word, sentence = of(spread={'client 0': 0.8, 'client 1': 0.01})
  assert word == 'collapsed' and sentence.startswith(
      'collapsed: the features of client 1 have a spread of 0.01')
  assert of(effective_rank=1.2)[0] == 'collapsed'
  assert of(spread={'client 0': np.nan, 'client 1': 0.5})[0] == 'collapsed'
  assert of(effective_rank=np.nan)[0] == 'collapsed'
  assert of(spread={'client 0': 0.15})[0] == 'collapsing'
  assert of(effective_rank=3.)[0] == 'collapsing'


def test_the_sample_is_even_over_clients():
  parts = [np.arange(10), np.arange(10, 5000), np.arange(5000, 5040)]
  few, many, some = label_free.rows(parts)
  assert list(few) == list(range(10)) and list(some) == list(range(5000, 5040))
  assert len(many) == 2048 // 3 and many[0] == 10 and many[-1] == 4999
  assert len(set(many)) == len(many)
  chosen = label_free.rows([np.arange(50)] * 1000)
  assert len(chosen) == 64 and {len(x) for x in chosen} == {32}
