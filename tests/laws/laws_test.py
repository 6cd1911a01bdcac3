"""Laws that hold for any numbers: means, rules, rounds, clients, keys."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.core import aggregation
from fedu_jax.core import trees
from fedu_jax.core import update_rules
from fedu_jax.core.state import Memory, ServerState
from tests.helpers import small

RULES = {
    'dapu': functools.partial(fedu_jax.dapu, threshold=0.4),
    'global_predictor': fedu_jax.global_predictor,
    'local_predictor': fedu_jax.local_predictor,
    'fedema': functools.partial(fedu_jax.fedema, scale=0.7),
    'fedema_auto': functools.partial(fedu_jax.fedema_auto, tau=0.7)}


def trained_client(divergence=0.3, last_round=2, seed=1):
  """Makes a client with other numbers than the server's."""
  client = small.client(0, fedu_jax.init_clients(
      small.online(), np.array([8]),
      memory=Memory(rule=update_rules.FedEMAMemory(0.))))
  return small.noise(client, seed)._replace(
      num_examples=jnp.float32(8), divergence=jnp.float32(divergence),
      last_round=jnp.int32(last_round), uploaded=jnp.array(last_round >= 0),
      memory=Memory(rule=update_rules.FedEMAMemory(jnp.float32(0))))


def a_server(seed=2):
  return ServerState(small.noise(small.online(), seed), jnp.int32(3))


def test_who_joins_late_gets_the_mean_of_the_targets():
  """With aggregated targets. The released code sends the mean of online
  encoders.
  """
  _, clients, _ = small.federation()
  clients = small.noise(clients)._replace(num_examples=clients.num_examples)
  server = aggregation.fedavg_target(
      ServerState(small.online(), jnp.int32(3)), clients)
  late = small.client(0, fedu_jax.init_clients(small.online(), np.array([8])))
  for rule in (RULES['dapu'], fedu_jax.global_predictor):
    joined = rule(late, server)
    want = weighted_mean(clients.target, clients.num_examples)
    small.check_close(joined.online.encoder, want)
    small.check_close(joined.target, want)


# --- means -----------------------------------------------------------------

def weighted_mean(stacked, weights):
  return trees.mean(trees.weighted_sum(stacked, weights),
                    jax.tree.map(lambda x: x[0], stacked))


weights = st.lists(st.integers(0, 50_000), min_size=1, max_size=6).filter(any)


@given(weights, st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_weighted_mean_is_the_sum_in_client_order(counts, seed):
  draw = np.random.RandomState(seed)
  stacked = {'a': draw.randn(len(counts), 2, 3).astype(np.float32),
             'b': draw.randn(len(counts)).astype(np.float32)}
  got = weighted_mean(stacked, jnp.asarray(counts, jnp.float32))
  for name, x in stacked.items():
    total = np.zeros(x.shape[1:], np.float32)
    for n, row in zip(counts, x):
      total = total + np.float32(n) * row
    np.testing.assert_allclose(got[name], total / np.float32(sum(counts)),
                               rtol=1e-6, atol=1e-6)


@given(weights)
@settings(max_examples=25, deadline=None)
def test_the_mean_of_equals_is_the_equal(counts):
  x = np.random.RandomState(0).randn(3).astype(np.float32)
  got = weighted_mean(np.tile(x, (len(counts), 1)),
                      jnp.asarray(counts, jnp.float32))
  np.testing.assert_allclose(got, x, rtol=1e-5)


def test_a_zero_weight_is_a_no_op_even_for_nan():
  x = jnp.array([[1., 2.], [jnp.nan, jnp.inf], [3., 6.]])
  got = weighted_mean(x, jnp.array([1., 0., 3.]))
  np.testing.assert_array_equal(got, [2.5, 5.])


def test_aggregate_covers_every_buffer_and_keeps_the_server_without_weight():
  _, clients, _ = small.federation(sizes=(8, 12))
  clients = small.noise(clients)._replace(num_examples=jnp.array([8., 12.]))
  server = fedu_jax.aggregate(a_server(), clients)
  small.check_close(server.online, jax.tree.map(
      lambda x: 0.4 * x[0] + 0.6 * x[1], clients.online))
  assert server.round == 4
  nobody = fedu_jax.aggregate(a_server(), clients._replace(
      num_examples=jnp.zeros(2)))
  small.check_equal(nobody.online, a_server().online)


# --- rules -----------------------------------------------------------------


@pytest.mark.parametrize('name', list(RULES))
def test_rules_of_a_client_that_never_trained(name):
  """The client takes the server's networks, its target too."""
  server = a_server()
  client = RULES[name](trained_client(last_round=-1), server)
  small.check_equal(client.online, server.online)
  small.check_equal(client.target, server.online.encoder)
  assert client.memory.rule.scale == 0  # and has nothing to remember yet


@pytest.mark.parametrize('name', list(RULES))
def test_rules_leave_the_rest_alone(name):
  """The client keeps its target, size, drift and rounds."""
  before, server = trained_client(), a_server()
  after = RULES[name](before, server)
  small.check_equal(after.target, before.target)
  for field in ('num_examples', 'divergence', 'last_round'):
    assert getattr(after, field) == getattr(before, field)
  assert jax.tree.structure(after) == jax.tree.structure(before)
  assert ([x.dtype for x in jax.tree.leaves(after)]
          == [x.dtype for x in jax.tree.leaves(before)])


@pytest.mark.parametrize('name', list(RULES))
def test_rules_stack(name):
  """Plain, jitted and vmapped rules give the same."""
  server, rule = a_server(), RULES[name]
  several = [trained_client(d, r, s) for s, (d, r) in enumerate(
      [(0.1, 0), (0.9, 1), (0.3, -1)])]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
  got = jax.jit(jax.vmap(rule, in_axes=(0, None)))(stacked, server)
  for k, client in enumerate(several):
    small.check_close(small.client(k, got), rule(client, server))


@pytest.mark.parametrize('name', [
    'dapu', 'global_predictor', 'local_predictor'])
def test_rules_that_choose_are_idempotent(name):
  server, rule = a_server(), RULES[name]
  once = rule(trained_client(), server)
  small.check_equal(rule(once, server), once)


@pytest.mark.parametrize('divergence, takes_global', [
    (0.0, True), (0.3999, True), (0.4, False), (0.4001, False)])
def test_dapu_is_strict(divergence, takes_global):
  """Below the threshold it takes the server's predictor; AT it, the client's
  own.
  """
  before, server = trained_client(divergence), a_server()
  after = RULES['dapu'](before, server)
  small.check_equal(after.online.encoder, server.online.encoder)
  want = server if takes_global else before
  small.check_equal(after.online.predictor, want.online.predictor)


def test_dapu_between_its_limits():
  """Threshold 0 keeps the local predictor; infinity takes the server's."""
  client, server = trained_client(), a_server()
  small.check_equal(fedu_jax.dapu(client, server, threshold=0.),
                    fedu_jax.local_predictor(client, server))
  small.check_equal(fedu_jax.dapu(client, server, threshold=float('inf')),
                    fedu_jax.global_predictor(client, server))


@pytest.mark.parametrize('scale, divergence', [
    (0.5, 0.4), (1.0, 0.8), (9., .4)])
def test_fedema_by_hand(scale, divergence):
  """mu = min(scale * divergence, 1); statistics are from the side mu favours.
  """
  before, server = trained_client(divergence), a_server()
  after = fedu_jax.fedema(before, server, scale=scale)
  mu = min(scale * divergence, 1)
  blend = lambda a, b: jax.tree.map(lambda x, y: mu * x + (1 - mu) * y, a, b)
  own, ours = before.online, server.online
  small.check_close(after.online.encoder.params,
                    blend(own.encoder.params, ours.encoder.params))
  small.check_close(after.online.predictor.params,
                    blend(own.predictor.params, ours.predictor.params))
  small.check_equal(after.online.encoder.batch_stats, ours.encoder.batch_stats)
  small.check_equal(after.online.predictor.batch_stats,
                    (own if mu > 0.5 else ours).predictor.batch_stats)


def test_fedema_auto_sets_its_scale_once():
  """The scale is tau / the first divergence, so the first mu is tau. It stays.
  """
  server = a_server()
  first = trained_client(divergence=0.2)
  after = RULES['fedema_auto'](first, server)
  np.testing.assert_allclose(after.memory.rule.scale, 0.7 / 0.2, rtol=1e-6)
  small.check_close(after.online, fedu_jax.fedema(first, server,
                                                  scale=3.5).online)
  later = after._replace(divergence=jnp.float32(0.1))
  again = RULES['fedema_auto'](later, server)
  np.testing.assert_allclose(again.memory.rule.scale, 3.5, rtol=1e-6)
  small.check_close(again.online, fedu_jax.fedema(later, server,
                                                  scale=3.5).online)


@pytest.mark.parametrize('reset, last_round, taken', [
    (True, 2, False), (True, 1, True), (False, 1, False)])
def test_fedema_resets_who_missed_a_round(reset, last_round, taken):
  """The server has done 3 rounds. Clients of the third have last_round 2."""
  before, server = trained_client(last_round=last_round), a_server()
  after = fedu_jax.fedema(before, server, scale=0.7, reset_missed=reset)
  assert trees.equal(after.online, server.online) == taken
  assert trees.equal(after.target, server.online.encoder) == taken


@pytest.mark.parametrize('updates, online, target', [
    ('online', True, False), ('target', False, True), ('both', True, True),
    ('neither', False, False)])
@pytest.mark.parametrize('predictor', [True, False])
def test_which_encoder_becomes_the_global_one(updates, online, target,
                                              predictor):
  """The choices of FedU's ablation; the predictor is independent of them."""
  before, server = trained_client(divergence=0.3), a_server()
  after = fedu_jax.dapu(before, server, threshold=1.0 if predictor else 0.1,
                        updates=updates)
  pick = lambda flag, a, b: a if flag else b
  ours = server.online
  small.check_equal(after.online.encoder,
                    pick(online, ours.encoder, before.online.encoder))
  small.check_equal(after.target, pick(target, ours.encoder, before.target))
  small.check_equal(after.online.predictor, pick(
      predictor, ours.predictor, before.online.predictor))
  with pytest.raises(ValueError, match="'online', 'target'"):
    fedu_jax.dapu(before, server, threshold=1.0, updates='encoder')


# --- aggregations ----------------------------------------------------------


def some_clients(count=3):
  _, clients, _ = small.federation(sizes=(8, 12, 9)[:count])
  return small.noise(clients)._replace(num_examples=clients.num_examples)


def test_averaging_targets_leaves_predictors_as_ever():
  server, clients = a_server(), some_clients()
  plain = fedu_jax.aggregate(server, clients)
  got = aggregation.fedavg_target(server, clients)
  small.check_equal(got.online.predictor, plain.online.predictor)
  small.check_close(got.online.encoder, weighted_mean(
      clients.target, clients.num_examples))
  assert got.round == plain.round


def test_ldawa_in_numpy():
  """Each array is scaled by its cosine with the server's; statistics are
  averaged.
  """
  server, clients = a_server(), some_clients()
  got = aggregation.ldawa(server, clients)
  def want(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    total = 0
    for x in theirs:
      cosine = (x * ours).sum() / np.linalg.norm(x) / np.linalg.norm(ours)
      total = total + cosine * x
    return total / len(theirs)
  for mine, uploads, old in ((got.online.encoder, clients.online.encoder,
                              server.online.encoder),
                             (got.online.predictor, clients.online.predictor,
                              server.online.predictor)):
    small.check_close(mine.params, jax.tree.map(
        want, old.params, uploads.params))
    small.check_close(mine.batch_stats, jax.tree.map(
        lambda x: x.mean(0), uploads.batch_stats))


@pytest.mark.parametrize('name', ['fedavg', 'fedavg_target', 'ldawa'])
def test_an_aggregation_of_equals_and_of_nobody(name):
  """Clients equal to the server change nothing, and weight 0 is not read."""
  aggregate = getattr(aggregation, name)
  server, clients = a_server(), some_clients()
  same = lambda tree, count: jax.tree.map(
      lambda x: jnp.stack([x] * count), tree)
  equal = clients._replace(online=same(server.online, 3),
                           target=same(server.online.encoder, 3))
  small.check_close(aggregate(server, equal).online, server.online)
  spoil = lambda tree: jax.tree.map(lambda x: x.at[1].set(jnp.nan), tree)
  spoilt = equal._replace(
      online=spoil(equal.online), target=spoil(equal.target),
      num_examples=equal.num_examples.at[1].set(0))
  small.check_close(aggregate(server, spoilt).online, server.online)
  nobody = clients._replace(num_examples=0 * clients.num_examples)
  small.check_equal(aggregate(server, nobody).online, server.online)


# --- rounds ----------------------------------------------------------------


def one_round(server, clients, batches, rule='dapu', **choices):
  step = functools.partial(fedu_jax.local_update, learner=small.learner())
  return jax.jit(lambda *args: fedu_jax.run_round(
      *args, local_update=step, aggregate=fedu_jax.aggregate,
      rule=RULES[rule], **choices))(server, clients, batches,
                                    jax.random.key(5))


@functools.cache
def mapped():
  return one_round(*small.federation(), execution='map')


@pytest.fixture
def double():
  """float64: right answers agree to 1e-10, and wrong ones do not."""
  with jax.enable_x64(True):
    yield functools.partial(small.federation, dtype=jnp.float64)


def check_double(a, b):
  small.check_close(a, b, rtol=1e-6, atol=1e-10)


def test_vmap_map_and_a_loop_agree(double):
  """Three ways to run clients of unequal sizes give one answer."""
  server, clients, batches = double()
  map_ = one_round(server, clients, batches, execution='map')
  vmap = one_round(server, clients, batches, execution='vmap')
  check_double(vmap, map_)
  step = jax.jit(functools.partial(fedu_jax.local_update,
                                   learner=small.learner()))
  run_key = jax.random.fold_in(jax.random.key(5), 0)
  looped = [step(small.client(k, clients), small.client(k, batches),
                 jax.random.fold_in(run_key, k)) for k in range(3)]
  trained = jax.tree.map(lambda *x: jnp.stack(x), *[c for c, _ in looped])
  check_double(fedu_jax.aggregate(server, trained), map_[0])


def test_executions_agree_in_float32():
  """They agree to the rounding of four steps."""
  small.check_close(one_round(*small.federation(), execution='vmap'), mapped(),
                    rtol=1e-2, atol=1e-4)


def test_run_round_equals_the_composition_by_hand(double):
  """The lines of the README, for two rounds."""
  server, clients, batches = start = double()
  train = jax.jit(jax.vmap(functools.partial(
      fedu_jax.local_update, learner=small.learner())))
  want = start[:2]
  for r in range(2):
    clients = jax.vmap(RULES['dapu'], in_axes=(0, None))(clients, server)
    rngs = jax.vmap(lambda i: jax.random.fold_in(
        jax.random.fold_in(jax.random.key(5), r), i))(jnp.arange(3))
    clients, metrics = train(clients, batches, rngs)
    server = fedu_jax.aggregate(server, clients)
    *want, reported = one_round(*want, batches, execution='map')
    check_double((server, clients), tuple(want))
    for name in ('global_predictor', 'arrived', 'sound'):
      del reported[name]
    check_double(metrics, reported)


def test_unknown_execution():
  with pytest.raises(ValueError, match='auto'):
    fedu_jax.map_clients(lambda x: x, execution='pmap')


def test_the_order_of_clients_does_not_matter(double):
  """Clients with the same ids in another order give the same server and states.
  """
  server, clients, batches = double()
  order = jnp.array([2, 0, 1])
  permuted = one_round(server, *trees.take((clients, batches), order),
                       ids=order, execution='map')
  after, trained, _ = one_round(server, clients, batches, execution='map')
  check_double(permuted[:2], (after, trees.take(trained, order)))


def test_a_stale_client_keeps_its_target_predictor_and_flag():
  """FedU's rule for a client that returns after missed rounds (facts A9)."""
  server, clients, batches = small.federation()
  # Round 0: clients 0 and 1 train; neither is called again until round 2.
  early, late = jnp.array([0, 1]), jnp.array([2])
  server, trained, _ = one_round(
      server, *trees.take((clients, batches), early), ids=early)
  # Round 1: client 2 trains alone.
  server, _, _ = one_round(
      server, *trees.take((clients, batches), late), ids=late)
  # Round 2: what client 0 has downloaded when its training begins.
  before = small.client(0, trained)
  _, downloaded, _ = fedu_jax.run_round(
      server, *trees.take((trained, batches), jnp.array([0])),
      jax.random.key(0), local_update=lambda client, *_: (client, {}),
      aggregate=fedu_jax.aggregate, rule=RULES['dapu'], execution='vmap')
  after = small.client(0, downloaded)
  small.check_equal(after.target, before.target)
  small.check_equal(after.online.encoder, server.online.encoder)
  small.check_equal(after.online.predictor, trees.where(
      before.divergence < 0.4, server.online.predictor,
      before.online.predictor))
  assert after.divergence == before.divergence and after.last_round == 0


def test_rounds_share_one_compilation():
  server, clients, batches = small.federation()
  step = functools.partial(fedu_jax.local_update, learner=small.learner())
  traces = []
  def body(*args):
    traces.append(None)
    return fedu_jax.run_round(*args, local_update=step,
                              aggregate=fedu_jax.aggregate, rule=RULES['dapu'],
                              execution='map')
  compiled = jax.jit(body)
  for r in range(3):
    batches = batches._replace(round=jnp.full(3, r, jnp.int32))
    server, clients, _ = compiled(server, clients, batches, jax.random.key(0))
  assert len(traces) == 1 and server.round == 3
  assert clients.last_round.tolist() == [2, 2, 2]


@given(st.integers(0, 2**31 - 1), st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_keys_depend_on_round_and_id_alone(seed, round_, who):
  from fedu_jax.core.rounds import client_rngs
  key = jax.random.key(seed)
  alone = client_rngs(key, round_, jnp.array([who]))
  among = client_rngs(key, round_, jnp.array([5000, who, 7]))
  assert (jax.random.key_data(alone[0]) == jax.random.key_data(among[1])).all()
  others = client_rngs(key, round_ + 1, jnp.array([who]))
  assert (jax.random.key_data(alone) != jax.random.key_data(others)).any()


# --- swapping one piece ----------------------------------------------------


def test_a_swapped_aggregation_is_one_function():
  """The coordinate-wise median, in a researcher's own file."""
  def median(server, clients):
    return server._replace(
        online=jax.tree.map(lambda x: jnp.median(x, axis=0), clients.online),
        round=server.round + 1)
  server, clients, batches = small.federation()
  step = functools.partial(fedu_jax.local_update,
                           learner=small.counting_learner())
  after, clients, _ = jax.jit(lambda *a: fedu_jax.run_round(
      *a, local_update=step, aggregate=median, rule=fedu_jax.local_predictor))(
          server, clients, batches, jax.random.key(0))
  small.check_equal(after.online, jax.tree.map(
      lambda x: jnp.median(x, axis=0), clients.online))
  assert not trees.equal(after.online.encoder, server.online.encoder)
