"""Whole federations against a PyTorch implementation, in float64.

FedEMA, the ablations, cohorts and the learning rate's schedule: four rounds of
three clients with two batches, on a ResNet of two blocks. One compiled round
serves all of them except the ablations of the loss: their differences are data.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10
import fedu_jax
from fedu_jax.core import aggregation
from fedu_jax.core import rounds
from fedu_jax.core import trees
from fedu_jax.core import update_rules
from fedu_jax.core.state import Memory, ServerState
from fedu_jax.models import layers
from fedu_jax.models import networks
from fedu_jax.models import resnet
from fedu_jax.training.config import build

torch = pytest.importorskip(
    'torch', reason="parity needs PyTorch: pip install -e '.[parity]'")
from tests.helpers import torch_fedu  # noqa: E402
from tests.helpers import torch_rounds  # noqa: E402
from tests.helpers.torch_rounds import Way  # noqa: E402
from tests.helpers.torch_weights import from_torch  # noqa: E402
from tests.helpers.torch_weights import online_from  # noqa: E402

BATCH, SIZE, STEPS, ROUNDS, POOL = 8, 7, 2, 4, 16
COUNTS = [24, 16, 40, 20, 32]  # of images: the weights of the mean
EVERYONE = [[0, 1, 2]] * ROUNDS
# Clients 3 and 4 come late; 0 to 3 return after one and two missed rounds.
COHORTS = [[0, 1, 2], [1, 3, 4], [0, 2, 4], [0, 1, 3]]
ERROR = 1e-8  # of the whole tree's norm

_HEAD = layers.MLP(12, 8)
NETS = networks.Nets(networks.Encoder(resnet.ResNet(
    resnet.BasicBlock, (1, 1), 4), _HEAD), _HEAD)


@pytest.fixture(autouse=True)
def double():
  threads = torch.get_num_threads()
  with jax.enable_x64():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # for so small a net more wait for each other
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)


@functools.cache
def pool():
  """Two views of each batch of the test, [POOL, B, H, W, 3]."""
  draw = np.random.RandomState(0)
  coarse = draw.uniform(size=(2, POOL, BATCH, 2, 2, 3))
  colour = draw.uniform(size=(2, POOL, BATCH, 1, 1, 3))
  return (coarse.repeat(4, 3).repeat(4, 4)[..., :SIZE, :SIZE, :] + colour) / 2


def view():
  """Returns the pool's views; the first pixel names the batch.

  A step calls it twice, and may be traced several times.
  """
  calls = []
  def fn(images, rng):
    del rng
    calls.append(None)
    return jnp.asarray(pool())[(len(calls) - 1) % 2][images[0, 0, 0, 0]]
  return fn


def batch_of(round_, k, step):
  return (5 * round_ + 3 * k + step) % POOL


def config_of(**learner):
  config = cifar10.get_config()
  config.rounds = ROUNDS
  config.learner.update(learner)
  return config


# What a rule or an aggregation is, is data: a number in the server's memory.
_RULES = [
    *(functools.partial(fedu_jax.global_predictor, updates=x)
      for x in update_rules.UPDATES),
    *(functools.partial(fedu_jax.local_predictor, updates=x)
      for x in update_rules.UPDATES)]


def rule(client, server):
  def dapu(client, server):
    return fedu_jax.dapu(client, server, threshold=server.memory['threshold'])
  def fedema(reset, client, server):
    return fedu_jax.fedema(client, server, scale=server.memory['scale'],
                           reset_missed=reset)
  def auto(reset, client, server):
    return fedu_jax.fedema_auto(client, server, tau=server.memory['scale'],
                                reset_missed=reset)
  branches = [*_RULES, dapu] + [functools.partial(fn, reset) for fn in (
      fedema, auto) for reset in (False, True)]
  return jax.lax.switch(server.memory['rule'], branches, client, server)


def number_of(way):
  if way.predictor == 'dapu':
    return 8
  if way.predictor == 'ema':
    return 9 + way.reset + 2 * bool(way.tau)
  return update_rules.UPDATES.index(way.updates) + 4 * (
      way.predictor == 'local')


def aggregate(server, clients):
  return jax.lax.switch(
      server.memory['averages'],
      [aggregation.fedavg, aggregation.fedavg_target], server, clients)


@functools.cache
def round_fn(moving_average, stop_gradient):
  """A round of three clients, with the product's learner and schedule."""
  made = build.learner(config_of(
      first_target='alias', ema=moving_average, stop_gradient=stop_gradient),
                       NETS)

  def init(client, round_):
    state = made.init(client, round_)
    # After a client's first round, 'alias' is the same as 'copy'.
    return state._replace(first=state.first & client.memory.learner)
  learner = made._replace(
      init=init, step=functools.partial(made.step, view=view()))

  @jax.jit
  def fn(server, clients, ids, batches):
    server, members, metrics = rounds.run_round(
        server, trees.take(clients, ids), batches, jax.random.key(0), ids=ids,
        aggregate=aggregate, rule=rule, local_update=functools.partial(
            fedu_jax.local_update, learner=learner))
    return server, trees.put(clients, ids, members), metrics
  return fn


def batches_of(round_, cohort):
  """Each step's batch is the rows with its number in the first pixel."""
  pixels = np.arange(POOL, dtype=np.uint8).reshape(-1, 1, 1, 1)
  pixels = np.broadcast_to(pixels, (len(cohort), POOL, SIZE, SIZE, 3))
  index = np.array([[[batch_of(round_, k, s)] * BATCH for s in range(STEPS)]
                    for k in cohort], np.int32)
  return fedu_jax.Batches(
      jnp.asarray(pixels), jnp.asarray(index),
      jnp.ones((len(cohort), STEPS), bool),
      jnp.full(len(cohort), round_, jnp.int32))


def pairs_of(round_, cohort):
  """Makes the same batches for PyTorch."""
  def pair(number):
    return tuple(torch.tensor(x[number].transpose(0, 3, 1, 2)) for x in pool())
  return [[pair(batch_of(round_, k, s)) for s in range(STEPS)] for k in cohort]


def error(ours, theirs):
  """Returns the distance of whole trees over the norm."""
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  flat = lambda tree: np.concatenate(
      [np.ravel(x) for x in jax.tree.leaves(tree)])
  a, b = flat(ours), flat(theirs)
  return np.linalg.norm(a - b) / np.linalg.norm(b)


def networks_of(party):
  return (online_from(party.encoder, party.predictor),
          from_torch(party.target))


def compare(way, cohorts):
  """Runs both; checks each round's losses and drifts, and all networks.

  Returns the PyTorch federation, and for each download FedEMA's mu and DAPU's
  decision.
  """
  torch.manual_seed(0)
  encoder = torch_fedu.Encoder(torch_fedu.Block, (1, 1), 4, 12, 8)
  predictor = torch_fedu.mlp(8, 12, 8)
  config = config_of()
  theirs = torch_rounds.Federation(encoder, predictor, COUNTS, way)

  online = online_from(encoder, predictor)
  clients = fedu_jax.init_clients(online, np.array(COUNTS), memory=Memory(
      jnp.array(way.alias), update_rules.FedEMAMemory(0.)))
  server = ServerState(online, jnp.int32(0), {
      'rule': jnp.int32(number_of(way)), 'scale': jnp.float64(
          way.tau or way.scale), 'threshold': jnp.float64(way.threshold),
      'averages': jnp.int32(way.averages == 'target')})
  found = []
  for r, cohort in enumerate(cohorts):
    drifts = [theirs.parties[k].drift for k in cohort]
    losses, mus = theirs.run(
        cohort, pairs_of(r, cohort), config.optimizer.learning_rate, ROUNDS,
        config.learner.decay)
    found += [(mu, drift is not None and drift < way.threshold)
              for mu, drift in zip(mus, drifts)]
    server, clients, metrics = round_fn(
        way.moving_average, way.stop_gradient)(
            server, clients, jnp.array(cohort), batches_of(r, cohort))
    assert metrics['sound'].all()
    np.testing.assert_allclose(metrics['loss'], losses, rtol=ERROR)
    np.testing.assert_allclose(
        metrics['divergence'], [theirs.parties[k].drift for k in cohort],
        rtol=ERROR)
    ours = [jax.device_get(server.online)] + [trees.take(
        jax.device_get((clients.online, clients.target)), k) for k in cohort]
    want = [online_from(theirs.encoder, theirs.predictor)] + [
        networks_of(theirs.parties[k]) for k in cohort]
    for who, a, b in zip(['server', *cohort], ours, want, strict=True):
      assert error(a, b) < ERROR, (r, who, error(a, b))
  return theirs, found


# --- FedEMA ----------------------------------------------------------------


@pytest.mark.parametrize('reset', [True, False])
@pytest.mark.parametrize('choice', [{'scale': 3.}, {'tau': 0.7}], ids=str)
def test_fedema_in_cohorts(choice, reset):
  """Constant and automatic scale; with and without reset_missed."""
  theirs, found = compare(
      Way(predictor='ema', reset=reset, **choice), COHORTS)
  mus = [mu for mu, _ in found if mu is not None]
  assert len(mus) == (3 if reset else 7)  # of 12 downloads, 5 of them first
  # Both sides of one half, by which the predictor's statistics are chosen.
  assert min(mus) < 0.5 < max(mus), mus
  if not reset and 'scale' in choice:
    assert max(mus) == 1, mus


def test_fedema_with_everyone():
  _, found = compare(Way(predictor='ema', tau=0.7), EVERYONE)
  mus = [mu for mu, _ in found if mu is not None]
  assert len(mus) == 9 and len(set(mus)) > 6


# --- cohorts and DAPU ------------------------------------------------------


@pytest.mark.parametrize('alias', [True, False])
def test_fedu_in_cohorts(alias):
  """A client that returns keeps its target, predictor and last decision."""
  _, found = compare(Way(predictor='dapu', threshold=0.2, alias=alias), COHORTS)
  late = [decision for _, decision in found[3:]]
  assert {True, False} == set(late), found


# --- ablations -------------------------------------------------------------


@pytest.mark.parametrize('predictor', ['global', 'local'])
@pytest.mark.parametrize('averages', ['online', 'target'])
@pytest.mark.parametrize('updates', ['online', 'target', 'both', 'neither'])
def test_the_protocols_ablation(updates, averages, predictor):
  compare(Way(updates=updates, averages=averages, predictor=predictor,
              alias=False), EVERYONE)


@pytest.mark.parametrize('updates', ['online', 'both'])
@pytest.mark.parametrize('moving_average, stop_gradient', [
    (False, True), (True, False), (False, False)])
def test_without_moving_average_or_stop_gradient(moving_average, stop_gradient,
                                                 updates):
  """Without the average only the update changes a target. Without the stop only
  an aliased target has parameters for the gradient.
  """
  compare(Way(moving_average=moving_average, stop_gradient=stop_gradient,
              updates=updates), EVERYONE[:2])
