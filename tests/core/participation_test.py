"""Participation: draws without repetition, lost uploads, early stops."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.core import participation
from fedu_jax.core import trees
from fedu_jax.core.state import Batches
from tests.helpers import small

DRAWS = 4000


def counted(sample, sizes, size):
  """Returns the share of draws in which each client is in the cohort."""
  draw = jax.vmap(lambda rng: sample(
      rng, jnp.asarray(sizes, jnp.float32), size=size))
  cohorts = np.asarray(draw(jax.random.split(jax.random.key(0), DRAWS)))
  assert (np.diff(cohorts) > 0).all()  # ascending, so none twice
  assert cohorts.min() >= 0 and cohorts.max() < len(sizes)
  return np.bincount(cohorts.ravel(), minlength=len(sizes)) / DRAWS


def test_uniform():
  got = counted(participation.uniform, [1, 10, 100, 1000, 7], size=2)
  np.testing.assert_allclose(got, 2 / 5, atol=5 * 0.5 / DRAWS**0.5)


def test_by_size():
  """One client is drawn in proportion; the second in proportion of the rest."""
  sizes = np.array([1, 2, 3, 4])
  p = sizes / sizes.sum()
  bound = 5 * 0.5 / DRAWS**0.5
  np.testing.assert_allclose(counted(participation.by_size, sizes, 1), p,
                             atol=bound)
  second = [sum(p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i)
            for i in range(4)]
  np.testing.assert_allclose(counted(participation.by_size, sizes, 2),
                             p + second, atol=bound)
  assert counted(participation.by_size, [5, 0, 5], 2)[1] == 0


def test_arrives():
  rngs = jax.random.split(jax.random.key(1), DRAWS)
  share = lambda dropout: float(jax.vmap(lambda rng: participation.arrives(
      rng, dropout=dropout))(rngs).mean())
  assert share(0.) == 1 and share(1.) == 0
  assert abs(share(0.3) - 0.7) < 5 * 0.5 / DRAWS**0.5


@given(st.integers(0, 30), st.integers(0, 10), st.floats(0.01, 1),
       st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_a_straggler_stops_early_and_an_other_does_not(real, padding, least,
                                                       seed):
  mask = jnp.arange(real + padding) < real
  work = Batches(None, None, mask, jnp.int32(0))
  short = participation.shorten(work, jax.random.key(seed), stragglers=1.,
                                least=least).mask
  steps = int(short.sum())
  assert steps >= np.ceil(np.float32(least) * real * (1 - 1e-6))
  np.testing.assert_array_equal(short, np.arange(len(mask)) < steps)
  assert steps <= real and (steps or not real)
  never = participation.shorten(work, jax.random.key(seed), stragglers=0.,
                                least=least)
  np.testing.assert_array_equal(never.mask, mask)


@functools.cache
def rounds_of(arrived):
  """A round of three clients, with some lost uploads."""
  server, clients, batches = small.federation()
  step = functools.partial(fedu_jax.local_update,
                           learner=small.counting_learner())
  clients = clients._replace(last_round=jnp.array([-1, -1, 4]))
  server = server._replace(round=jnp.int32(5))
  return server, fedu_jax.run_round(
      server, clients, batches._replace(round=jnp.full(3, 5)),
      jax.random.key(0), local_update=step, aggregate=fedu_jax.aggregate,
      rule=fedu_jax.global_predictor,
      arrived=None if arrived is None else jnp.array(arrived))


def test_who_drops_weighs_nothing_and_keeps_what_it_learnt():
  arrived = (True, False, False)
  _, (everyone, trained, _) = rounds_of(None)
  _, (server, clients, metrics) = rounds_of(arrived)
  assert metrics['arrived'].tolist() == list(arrived)
  small.check_close(server.online, small.client(0, trained).online)
  assert not trees.equal(server.online, everyone.online)
  small.check_equal(clients._replace(uploaded=trained.uploaded), trained)
  assert clients.uploaded.tolist() == list(arrived)


def test_what_a_client_whose_first_upload_was_lost_downloads():
  """The client has trained, so it keeps its target. FedEMA treats it as
  missing.
  """
  _, (server, clients, _) = rounds_of((True, False, True))
  lost = small.noise(small.client(1, clients))._replace(
      last_round=jnp.int32(5), uploaded=jnp.array(False))
  small.check_equal(
      fedu_jax.global_predictor(lost, server).target, lost.target)
  small.check_equal(fedu_jax.fedema(lost, server, scale=0.1).target,
                    server.online.encoder)
  kept = fedu_jax.fedema(lost._replace(uploaded=jnp.array(True)), server,
                         scale=0.1)
  small.check_equal(kept.target, lost.target)


def test_a_round_that_nobody_survives():
  before, (server, clients, _) = rounds_of((False,) * 3)
  small.check_equal(server.online, before.online)
  assert server.round == 6
  assert not trees.equal(small.client(0, clients).online, before.online)


def test_all_arriving_is_the_plain_round():
  small.check_equal(rounds_of((True,) * 3)[1], rounds_of(None)[1])


@pytest.mark.parametrize('name', ['uniform', 'by_size'])
def test_samplings_depend_on_the_key(name):
  sample = functools.partial(getattr(participation, name), size=3)
  cohorts = {tuple(sample(jax.random.key(i), jnp.ones(10)).tolist())
             for i in range(20)}
  assert len(cohorts) > 10


@pytest.mark.parametrize('name', ['uniform', 'by_size'])
def test_draws_are_the_same_in_double_precision(name):
  sizes = jnp.arange(1, 21, dtype=jnp.float32)

  def draws():
    rng = jax.random.key(3)
    batches = Batches(jnp.zeros(1), jnp.zeros((10, 2), jnp.int32),
                      jnp.ones(10, bool), jnp.int32(0))
    late = participation.shorten(batches, rng, stragglers=1.0, least=0.1)
    return [np.asarray(x) for x in (
        getattr(participation, name)(rng, sizes, size=7), late.mask,
        participation.arrives(rng, dropout=0.5))]
  with jax.enable_x64(True):
    double = draws()
  for ours, theirs in zip(draws(), double):
    np.testing.assert_array_equal(ours, theirs)
