"""Laws of the step; steps_parity_test checks its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedu_jax
from fedu_jax.learners.byol import Kernels
from fedu_jax.models import layers
from fedu_jax.models import networks
from fedu_jax.models import resnet
from tests.helpers import small


def run(steps=1, **choices):
  """Runs steps of BYOL on one client; returns its first and last state."""
  learner = small.learner(**choices)
  client = small.client(0, fedu_jax.init_clients(small.online(), np.array([8])))
  # A target that is not the online encoder, so that every part can be seen.
  client = client._replace(target=small.noise(client.target)._replace(
      batch_stats=client.target.batch_stats))
  state = start = learner.init(client, jnp.int32(0))
  pixels = jnp.asarray(small.images(8))
  step = jax.jit(learner.step)
  for s in range(steps):
    state, metrics = step(state, pixels, jax.random.key(s))
  return start, state, metrics


def test_loss_in_numpy():
  """Two directions, unit vectors, no factor of one half: 2 - 2 cos, in 0..4."""
  p = np.random.RandomState(0).randn(5, 7).astype(np.float32)
  z = np.random.RandomState(1).randn(5, 7).astype(np.float32)
  cos = (p * z).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(z, axis=1)
  np.testing.assert_allclose(fedu_jax.regression_loss(p, z), 2 - 2 * cos,
                             rtol=1e-5)
  np.testing.assert_allclose(fedu_jax.regression_loss(p, 3 * p), 0, atol=1e-6)
  np.testing.assert_allclose(fedu_jax.regression_loss(p, -p), 4, rtol=1e-6)
  zero = np.zeros_like(p)  # a dead output has a loss and a finite gradient
  assert np.isfinite(jax.grad(
      lambda x: fedu_jax.regression_loss(x, z).sum())(zero)).all()


def test_decay_one_freezes_the_target_and_zero_copies_the_online():
  start, end, _ = run(decay=1.0)
  small.check_equal(end.target.params, start.target.params)
  _, end, _ = run(decay=0.0)
  small.check_close(end.target.params, end.online.encoder.params, atol=0)


def test_the_ema_moves_parameters_only():
  start, end, _ = run(decay=0.75)
  want = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new,
                      start.target.params, end.online.encoder.params)
  small.check_close(end.target.params, want)
  # Its own statistics come from its own forward passes, in training mode.
  tracked = jax.tree.leaves(end.target.batch_stats)
  online = jax.tree.leaves(end.online.encoder.batch_stats)
  first = jax.tree.leaves(start.target.batch_stats)
  assert all((a != b).any() for a, b in zip(tracked, first))
  assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(tracked, online))


def test_no_gradient_reaches_the_target():
  """Scaling the target's last layer scales its output, not the gradients."""
  seen = []
  def spy():
    def update(grads, state, params=None):
      seen.append(jax.tree.structure(grads))
      return grads, state
    return optax.GradientTransformation(lambda p: (), update)
  start, _, _ = run(make_tx=lambda _: spy())
  assert seen[0] == jax.tree.structure(
      (start.online.encoder.params, start.online.predictor.params))

  def loss(target_params):
    learner = small.learner()
    _, metrics = learner.step(
        start._replace(target=start.target._replace(params=target_params),
                       opt_state=small.make_tx(0).init(
                           (start.online.encoder.params,
                            start.online.predictor.params))),
        jnp.asarray(small.images(8)), jax.random.key(0))
    return metrics['loss']
  for leaf in jax.tree.leaves(jax.grad(loss)(start.target.params)):
    np.testing.assert_array_equal(leaf, 0)


def test_aliased_first_round_shares_everything():
  _, end, _ = run(2, first_target='alias')
  small.check_equal(end.target, end.online.encoder)


def test_alias_is_for_the_first_round_only():
  learner = small.learner(first_target='alias')
  plain = small.learner()
  client = small.client(0, fedu_jax.init_clients(small.online(), np.array([8])))
  client = client._replace(target=small.noise(client.target)._replace(
      batch_stats=client.target.batch_stats), last_round=jnp.int32(0))
  ends = [x.step(x.init(client, jnp.int32(1)), jnp.asarray(small.images(8)),
                 jax.random.key(0))[0] for x in (learner, plain)]
  small.check_close(*ends)


def test_momentum_starts_anew_each_round_and_the_rate_is_the_rounds():
  learner = small.learner()
  client = small.client(0, fedu_jax.init_clients(small.online(), np.array([8])))
  state = learner.init(client, jnp.int32(3))
  trace = jax.tree.leaves(state.opt_state)
  assert all((x == 0).all() for x in trace) and state.round == 3
  def moved(round_):
    start = learner.init(client, jnp.int32(round_))
    end, _ = jax.jit(learner.step)(start, jnp.asarray(small.images(8)),
                                   jax.random.key(0))
    return (end.online.predictor.params['linear2']['bias']
            - start.online.predictor.params['linear2']['bias'])
  np.testing.assert_allclose(moved(0), 4 * moved(3), rtol=1e-3)


def test_a_swapped_loss_is_used():
  """It is one function in the user's own file."""
  _, _, metrics = run(loss=lambda p, z: jnp.full(p.shape[0], 1.5))
  assert metrics['loss'] == 3


def test_an_unknown_first_target_is_refused():
  with pytest.raises(ValueError, match="'copy', 'alias'"):
    small.learner(first_target='neither')


def test_views_together_train_as_in_turn():
  """Up to rounding, with the statistics of both views tracked in turn."""
  _, clients, batches = small.federation(sizes=(8,))
  ends = []
  for together in (False, True):
    nets = small.NETS._replace(together=together)
    assert networks.take_views(nets)
    learner = fedu_jax.byol(nets, small.view, make_tx=small.make_tx,
                            first_target='alias')
    ends.append(fedu_jax.local_update(
        small.client(0, clients), small.client(0, batches), jax.random.key(3),
        learner=learner))
  small.check_close(*ends, rtol=1e-3, atol=1e-5)
  moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()),
                       ends[0][0].target, small.client(0, clients).target)
  assert max(jax.tree.leaves(moved)) > 1e-2  # much more than the tolerance


@pytest.mark.parametrize('first_target', ['copy', 'alias'])
def test_rounded_kernels_follow_the_networks(first_target):
  """Each step leaves those of its end, and trains as if it rounded them."""
  head = layers.MLP(8, 4, 'bfloat16')
  nets = networks.Nets(networks.Encoder(resnet.ResNet(
      resnet.BasicBlock, (1,), 2, 'bfloat16'), head), head)
  online = fedu_jax.init_online(nets, jax.random.key(0),
                                jnp.zeros((2, small.SIZE, small.SIZE, 3)))
  client = small.client(0, fedu_jax.init_clients(online, np.array([8])))
  ends = []
  for rounded in (None, 'bfloat16'):
    learner = fedu_jax.byol(
        nets._replace(rounded=rounded), small.view, make_tx=small.make_tx,
        first_target=first_target)
    state, step = learner.init(client, jnp.int32(0)), jax.jit(learner.step)
    for s in range(2):
      state, _ = step(state, jnp.asarray(small.images(8)), jax.random.key(s))
    ends.append(state)
  plain, kept = ends
  assert plain.rounded == Kernels()
  for rounded, net in zip(kept.rounded, (*kept.online, kept.target),
                          strict=True):
    small.check_equal(rounded, layers.round_kernels(net.params, 'bfloat16'))
    assert jax.tree.leaves(rounded)
  small.check_close(kept._replace(rounded=Kernels()), plain, rtol=0, atol=2e-3)
