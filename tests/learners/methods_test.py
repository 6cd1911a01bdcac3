"""SimSiam, SimCLR, MoCo, supervised training and BYOL's ablations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax import learners
from fedu_jax.core import rounds
from fedu_jax.core.method import method_of
from fedu_jax.core.state import Labelled, Memory, ServerState
from fedu_jax.learners import fedca
from fedu_jax.learners import fedsc
from fedu_jax.learners import losses
from fedu_jax.learners import simclr
from fedu_jax.learners import supervised
from fedu_jax.models import layers as layers_lib
from fedu_jax.models import networks
from fedu_jax.models import resnet
from fedu_jax.training.config import build
from tests.helpers import small

QUEUE = 32


def make(name, **choices):
  build = method_of(learners.METHODS[name]).learner
  return build(small.NETS, small.view, make_tx=small.make_tx, **choices)


def start(learner, sizes=(8,)):
  memory = Memory(learner=learner.memory(
      small.online(), jax.random.key(5), jnp.zeros((1, small.SIZE, small.SIZE,
                                                    3))))
  return fedu_jax.init_clients(small.online(), np.array(sizes), memory=memory)


def run(learner, steps=1):
  client = small.client(0, start(learner))
  state = learner.init(client, jnp.int32(0))
  step = jax.jit(learner.step)
  for s in range(steps):
    state, metrics = step(state, jnp.asarray(small.images(8)),
                          jax.random.key(s))
  return client, learner.final(client, state), metrics


def one_round(learner, online, clients, batches):
  """Runs a round with FedAvg and the rule global_predictor."""
  return jax.jit(functools.partial(
      rounds.run_round, aggregate=fedu_jax.aggregate,
      rule=fedu_jax.global_predictor, local_update=functools.partial(
          fedu_jax.local_update, learner=learner)))(
              ServerState(online, jnp.int32(0)), clients, batches,
              jax.random.key(0))


# --- losses ----------------------------------------------------------------


def test_nt_xent_in_numpy():
  draw = np.random.RandomState(0)
  z1, z2, more = (draw.randn(n, 4).astype(np.float32) for n in (3, 3, 5))
  z = np.concatenate([z1, z2, more])
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  want = []
  for i in range(6):
    others = [j for j in range(len(z)) if j != i]
    logits = np.array([z[i] @ z[j] for j in others]) / 0.2
    want.append(np.log(np.exp(logits).sum())
                - logits[others.index((i + 3) % 6)])
  np.testing.assert_allclose(
      losses.nt_xent(z1, z2, temperature=0.2, negatives=more), want, rtol=1e-5)
  fewer = losses.nt_xent(z1, z2, temperature=0.2)
  assert (fewer < np.array(want)).all()  # fewer to be mistaken for


def test_info_nce_in_numpy():
  draw = np.random.RandomState(0)
  q, k, queue = (draw.randn(n, 4).astype(np.float32) for n in (3, 3, 7))
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  queue = unit(queue)
  logits = np.concatenate([(unit(q) * unit(k)).sum(1, keepdims=True),
                           unit(q) @ queue.T], 1) / 0.07
  want = np.log(np.exp(logits).sum(1)) - logits[:, 0]
  got = functools.partial(losses.info_nce, temperature=0.07)
  np.testing.assert_allclose(got(q, k, queue), want, rtol=1e-4)
  grads = jax.grad(lambda k: got(q, k, queue).sum())(k)
  np.testing.assert_array_equal(grads, 0)


# --- methods ---------------------------------------------------------------


@pytest.mark.parametrize('name, low, high', [
    ('simsiam', -1, 1), ('simclr', 0, np.inf), ('moco', 0, np.inf)])
def test_a_method_trains_what_it_says(name, low, high):
  choices = {'queue_size': QUEUE} if name == 'moco' else {}
  before, after, metrics = run(make(name, **choices), steps=2)
  assert low <= metrics['loss'] <= high
  moved = lambda a, b: any((x != y).any() for x, y in zip(
      jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
  assert moved(before.online.encoder, after.online.encoder)
  assert moved(before.online.predictor, after.online.predictor) == (
      name == 'simsiam')
  assert moved(before.target, after.target) == (name == 'moco')


def test_moco_fills_its_queue_in_a_circle():
  before, after, _ = run(make('moco', queue_size=QUEUE), steps=1)
  start, end = before.memory.learner, after.memory.learner
  np.testing.assert_allclose(np.linalg.norm(end.queue, axis=1), 1, rtol=1e-5)
  assert end.next == 16 and (end.queue[:16] != start.queue[:16]).all()
  np.testing.assert_array_equal(end.queue[16:], start.queue[16:])
  _, after, _ = run(make('moco', queue_size=QUEUE), steps=2)
  assert after.memory.learner.next == 0
  with pytest.raises(ValueError, match='no multiple'):
    run(make('moco', queue_size=24))


def test_moco_can_begin_each_round_with_its_first_keys():
  before, after, _ = run(make('moco', queue_size=QUEUE, keep_queue=False),
                         steps=1)
  small.check_equal(before.memory, after.memory)


def test_moco_resets_its_key_encoder_each_round():
  learner = make('moco', queue_size=QUEUE)
  _, after, _ = run(learner, steps=2)
  state = learner.init(after, jnp.int32(1))
  small.check_equal(state.target.params, after.online.encoder.params)
  small.check_equal(state.target.batch_stats, after.target.batch_stats)
  small.check_equal(state.memory, after.memory.learner)


def test_without_stop_gradient_simsiam_moves_elsewhere():
  _, with_stop, _ = run(make('simsiam'))
  _, without, _ = run(make('simsiam', stop_gradient=False))
  leaf = lambda c: c.online.encoder.params['projector']['linear2']['kernel']
  assert np.abs(leaf(with_stop) - leaf(without)).max() > 1e-6


@pytest.mark.parametrize('first_target', ['copy', 'alias'])
def test_byol_without_ema_leaves_the_target_as_it_is(first_target):
  """Its statistics change. In an aliased first round it is the online encoder.
  """
  def end(*, last_round, **choices):
    learner = small.learner(first_target=first_target, **choices)
    client = small.client(0, start(learner))._replace(
        last_round=jnp.int32(last_round))
    client = client._replace(target=small.noise(client.target)._replace(
        batch_stats=client.target.batch_stats))
    state, _ = jax.jit(learner.step)(
        learner.init(client, jnp.int32(4)), jnp.asarray(small.images(8)),
        jax.random.key(0))
    return client.target, state
  before, after = end(last_round=3, ema=False)
  small.check_equal(before.params, after.target.params)
  _, other = end(last_round=3)
  small.check_equal(other.target.batch_stats, after.target.batch_stats)
  moved = lambda a, b: max(jax.tree.leaves(jax.tree.map(
      lambda x, y: np.abs(x - y).max(), a, b)))
  assert moved(before.batch_stats, after.target.batch_stats) > 1e-4
  assert moved(before.params, other.target.params) > 1e-6
  before, after = end(last_round=-1, ema=False)
  small.check_equal(after.target.params, before.params
                    if first_target == 'copy' else after.online.encoder.params)


def test_stop_gradient_matters_only_where_the_target_is_the_online_encoder():
  def end(**choices):
    learner = small.learner(**choices)
    client = small.client(0, start(learner))
    client = client._replace(target=small.noise(client.target)._replace(
        batch_stats=client.target.batch_stats))
    return jax.jit(learner.step)(
        learner.init(client, jnp.int32(0)), jnp.asarray(small.images(8)),
        jax.random.key(0))[0].online.encoder.params
  small.check_close(end(stop_gradient=False), end())
  leaf = lambda p: p['projector']['linear2']['kernel']
  assert np.abs(leaf(end(first_target='alias', stop_gradient=False))
                - leaf(end(first_target='alias'))).max() > 1e-6


@pytest.mark.parametrize('layers', [0, 1])
def test_heads_with_fewer_layers(layers):
  """A predictor of one layer has no BatchNorm; one of 0 has no parameters."""
  nets = networks.resnet10(width=2, hidden=8, features=4,
                           predictor_layers=layers)
  online = jax.eval_shape(lambda: networks.init_online(
      nets, jax.random.key(0), jnp.zeros((2, 8, 8, 3))))
  assert not jax.tree.leaves(online.predictor.batch_stats)
  assert len(jax.tree.leaves(online.predictor.params)) == 2 * layers


def test_a_federation_without_a_predictor():
  """In SimCLR's setting, a round, its mean and its rule work without one."""
  nets = small.NETS._replace(predictor=layers_lib.MLP(8, 4, None, 0))
  online = fedu_jax.init_online(nets, jax.random.key(0), jnp.zeros(
      (2, small.SIZE, small.SIZE, 3)))
  assert jax.tree.leaves(online.predictor) == []
  _, _, batches = small.federation(sizes=(8, 8))
  clients = fedu_jax.init_clients(online, np.array([8, 8]))
  learner = simclr.simclr(nets, small.view, make_tx=small.make_tx)
  server, clients, metrics = one_round(
      learner, online, clients, batches)
  assert np.isfinite(metrics['loss']).all()
  assert metrics['global_predictor'].all()
  small.check_equal(fedu_jax.global_predictor(
      small.client(0, clients), server).online, server.online)


def test_fedcas_dictionary_travels():
  """Clients' newest keys go to the server, evenly, and then to all clients."""
  size = 16
  learner = make('fedca', queue_size=size)
  clients = start(learner, sizes=(8, 8, 8))
  _, _, batches = small.federation(sizes=(8, 8, 8))
  server = ServerState(small.online(), jnp.int32(0),
                       fedca.first_dictionary(clients))
  small.check_equal(server.memory, jax.tree.map(
      lambda x: x[1], clients.memory.learner.dictionary))
  clients = clients._replace(num_examples=jnp.array([8., 0., 8.]))
  local = functools.partial(fedu_jax.local_update, learner=learner)
  trained, _ = jax.jit(rounds.map_clients(local))(
      clients, batches, rounds.client_rngs(jax.random.key(0), server.round,
                                           jnp.arange(3)))
  after = fedca.add_to_dictionary(server, trained)
  keys, tags, share = (trained.memory.learner.keys, trained.memory.learner.tag,
                       size // 3)
  before = server.memory.entries
  want = np.concatenate([keys[0, :share], before[share:2 * share],
                         keys[2, :share], before])[:size]
  np.testing.assert_array_equal(after.memory.entries, want)
  assert tags[0] != tags[2] and tags.all()
  np.testing.assert_array_equal(after.memory.owners, np.concatenate([
      np.repeat([tags[0], 0, tags[2]], share), np.zeros(size - 3 * share)]))
  np.testing.assert_allclose(np.linalg.norm(want, axis=1), 1, rtol=1e-5)
  assert np.abs(keys[0, :share] - keys[2, :share]).max() > 1e-3
  got = fedca.take_dictionary(small.client(0, trained), after)
  small.check_equal(got.memory.learner.dictionary, after.memory)
  small.check_equal(got.memory.learner.keys, keys[0])
  small.check_equal(got.online, after.online)


def test_fedcas_dictionary_has_room_for_every_client():
  size = 2
  _, clients, _ = small.federation(sizes=(8, 8, 8))
  memory = make('fedca', queue_size=size).memory(
      small.online(), jax.random.key(3), jnp.zeros((1, small.SIZE, small.SIZE,
                                                    3)))
  clients = clients._replace(memory=Memory(jax.tree.map(
      lambda x: jnp.stack([x] * 3), memory)))
  server = ServerState(small.online(), jnp.int32(0),
                       fedca.first_dictionary(clients))
  with pytest.raises(ValueError, match='2 entries.*3 clients'):
    fedca.add_to_dictionary(server, clients)


def test_fedca_minds_the_dictionary():
  """Its loss is SimCLR's with the entries as more negatives."""
  learner = make('fedca', queue_size=4)
  client = small.client(0, start(learner))
  x, rng = jnp.asarray(small.images(8)), jax.random.key(0)
  def step(entries, owners=(0, 0, 0, 0), tag=0):
    known = client.memory.learner.dictionary._replace(
        entries=entries, owners=jnp.array(owners, jnp.int32))
    memory = client.memory.learner._replace(
        dictionary=known, tag=jnp.int32(tag))
    state = learner.init(client._replace(memory=Memory(memory)), jnp.int32(0))
    return learner.step(state, x, rng)
  def loss(*which):
    return step(*which)[1]['loss']
  views = jnp.concatenate([small.view(x, key) for key in jax.random.split(rng)])
  z = networks.forward(small.NETS.encoder, client.online.encoder, views)[0]
  entries = client.memory.learner.dictionary.entries
  among = lambda entries: losses.nt_xent(
      *jnp.split(z, 2), temperature=0.07, negatives=entries).mean()
  np.testing.assert_allclose(loss(entries), among(entries), rtol=1e-4)
  far, near = -z[:4], z[:4]
  assert loss(far) < loss(near)
  # Its own entries do not count; and it keeps the tag that it once drew.
  np.testing.assert_allclose(
      loss(near, (7, 5, 7, 0), 7), among(near[1::2]), rtol=1e-4)
  np.testing.assert_allclose(loss(near, (7,) * 4, 7), among(None), rtol=1e-4)
  assert step(near, tag=7)[0].memory.tag == 7 != step(near)[0].memory.tag


def test_fedscs_gradient_is_the_unions():
  """Two unequal clients with each other's moments have the gradients of one
  loss.
  """
  draw = np.random.RandomState(0)
  parts = [[losses.unit(jnp.asarray(draw.randn(n, 3))) for _ in range(2)]
           for n in (4, 6)]
  shares = [0.4, 0.6]
  moment = lambda z: z.T @ z / len(z)

  def union(parts):
    # Populations: with self-pairs, so that tr(R R) is exact.
    total = 0.
    for (z1, z2), share in zip(parts, shares):
      total += share * -2 * (z1 * z2).sum(1).mean()
    r = sum(q * moment(jnp.concatenate(p)) for q, p in zip(shares, parts))
    return total + jnp.trace(r @ r)
  want = jax.grad(union)(parts)
  for k in range(2):
    others = shares[1 - k] * moment(jnp.concatenate(parts[1 - k]))
    def one(part, k=k, others=others):
      alone = losses.spectral(*part, others=others, share=0.)
      r = moment(jnp.concatenate(part))
      return alone + shares[k] * jnp.trace(r @ r)
    for a, b in zip(jax.grad(one)(parts[k]), want[k]):
      np.testing.assert_allclose(shares[k] * a, b, rtol=1e-4, atol=1e-6)


def test_what_is_too_long_is_shortened():
  x = jnp.asarray([[3., 4.], [0.3, 0.4], [0., 0.]])
  np.testing.assert_allclose(losses.within(x, 2.), [[1.2, 1.6], x[1], x[2]],
                             rtol=1e-6)
  # Where nothing is shortened a gradient passes as it is, at nought as well.
  np.testing.assert_array_equal(
      jax.grad(lambda x: losses.within(x, 2.).sum())(x)[1:], 1)


def test_the_spectral_loss_in_numpy():
  draw = np.random.RandomState(0)
  z1, z2 = draw.randn(5, 3), draw.randn(5, 3)
  others = draw.randn(3, 3)
  pairs = [(z1[i] @ z2[j])**2 for i in range(5) for j in range(5) if i != j]
  want = (-2 * np.mean([a @ b for a, b in zip(z1, z2)]) + 0.3 * np.mean(pairs)
          + 2 * np.mean([z @ others @ z for z in (*z1, *z2)]))
  np.testing.assert_allclose(losses.spectral(
      jnp.asarray(z1), jnp.asarray(z2), others=jnp.asarray(others), share=0.3),
      want, rtol=1e-5)


def test_fedscs_moments_travel():
  """A client's share and the others' moments add up to those of all."""
  learner = make('fedsc', decay=0.5, mu=1e-4)
  clients = start(learner, sizes=(8, 24))
  _, _, batches = small.federation(sizes=(8, 24))
  server = ServerState(small.online(), jnp.int32(0),
                       fedsc.no_moments(clients))
  trained, _ = jax.jit(rounds.map_clients(functools.partial(
      fedu_jax.local_update, learner=learner)))(
          clients, batches, rounds.client_rngs(
              jax.random.key(0), server.round, jnp.arange(2)))
  own = trained.memory.learner.own
  # The mean square of norms, all of which are shortened.
  np.testing.assert_allclose(np.trace(own, axis1=1, axis2=2), 1e-4, rtol=1e-5)
  after = fedsc.average_moments(server, trained)
  for k, share in enumerate((0.25, 0.75)):
    got = fedsc.take_moments(
        small.client(k, trained), after).memory.learner
    np.testing.assert_allclose(got.share, share)
    np.testing.assert_allclose(got.others, (1 - share) * own[1 - k],
                               atol=1e-10)
  # One who sat the round out has nothing of its own in the mean.
  absent = small.client(0, trained)._replace(last_round=jnp.int32(-1))
  got = fedsc.take_moments(absent, after).memory.learner
  np.testing.assert_allclose(got.share, 8 / 40)
  np.testing.assert_allclose(got.others, 0.8 * after.memory.mean, atol=1e-10)
  nobody = trained._replace(num_examples=jnp.zeros(2))
  alone = fedsc.average_moments(after, nobody)
  small.check_equal(alone.memory.mean, after.memory.mean)
  got = fedsc.take_moments(small.client(0, trained), alone).memory.learner
  np.testing.assert_array_equal(got.others, 0)
  assert got.share == 1


def test_supervised_training_learns_its_labels():
  """The label of an image is its brightness. Two clients train to the end."""
  nets = networks.Nets(
      networks.Encoder(resnet.ResNet(resnet.BasicBlock, (1,), 4),
                       layers_lib.MLP(0, 0, None, 0)),
      layers_lib.MLP(0, 2, None, 1))
  labels = np.arange(32, dtype=np.int32) % 2
  noise = np.random.RandomState(0).randint(0, 60, (32, 6, 6, 3))
  pixels = (noise + 150 * labels[:, None, None, None]).astype(np.uint8)
  arrays = fedu_jax.client_arrays(Labelled(pixels, labels),
                                  np.split(np.arange(32), 2))
  assert arrays.images.labels.shape == (2, 16)
  online = fedu_jax.init_online(nets, jax.random.key(0),
                                jnp.zeros((2, 6, 6, 3)))
  clients = fedu_jax.init_clients(online, arrays.num_examples)
  batches = jax.vmap(lambda a, k: fedu_jax.make_batches(
      a, k, jnp.int32(0), batch_size=8, epochs=10))(
          arrays, jax.random.split(jax.random.key(1), 2))
  learner = supervised.supervised(nets, small.view, make_tx=small.make_tx)
  server, _, metrics = one_round(
      learner, online, clients, batches)
  assert metrics['loss'].max() < np.log(2) / 2  # a mean over all steps
  x = jnp.asarray(pixels, jnp.float32) / 255
  z = nets.encoder.apply(server.online.encoder._asdict(), x, train=False)
  logits = nets.predictor.apply(server.online.predictor._asdict(), z,
                                train=False)
  assert np.mean(np.argmax(logits, -1) == labels) > 0.9


def test_the_schedules():
  from configs import cifar10
  config = cifar10.get_config()
  config.optimizer.momentum = 0.
  config.optimizer.weight_decay = 0.
  def rate(round_):
    learner = build.learner(config, small.NETS)
    tx = learner.step.keywords['make_tx'](jnp.float32(round_))
    params = {'w': jnp.zeros(1)}
    update, _ = tx.update({'w': jnp.ones(1)}, tx.init(params), params)
    return -update['w'].item()
  assert rate(50) == pytest.approx(0.016, rel=1e-5)
  config.optimizer.schedule = 'constant'
  assert rate(50) == pytest.approx(0.032, rel=1e-5)


# --- against PyTorch -------------------------------------------------------


@pytest.mark.parametrize('name', ['simsiam', 'simclr', 'moco'])
def test_two_steps_of_the_rivals_in_pytorch(name):
  """In float64, to 1e-8: losses, weights, buffers, queue."""
  torch = pytest.importorskip(
      'torch', reason="parity needs PyTorch: pip install -e '.[parity]'")
  from tests.helpers import torch_fedu
  from tests.helpers.torch_weights import array
  from tests.helpers.torch_weights import from_torch
  from tests.helpers.torch_weights import online_from
  from tests.parity import steps_parity_test as parity
  torch.set_default_dtype(torch.float64)
  try:
    with jax.enable_x64():
      torch.manual_seed(0)
      encoder = torch_fedu.Encoder(torch_fedu.Block, (1, 1), 4, 12, 8)
      predictor = torch_fedu.mlp(8, 12, 8)
      head = layers_lib.MLP(12, 8)
      nets = networks.Nets(networks.Encoder(resnet.ResNet(
          resnet.BasicBlock, (1, 1), 4), head), head)
      choices = {'simsiam': {}, 'simclr': {'temperature': 0.07},
                 'moco': {'queue_size': 2 * parity.BATCH, 'temperature': 0.2}}
      learner = method_of(learners.METHODS[name]).learner(
          nets, parity.fixed_views(), make_tx=parity.make_tx('float64'),
          **choices[name])
      online = online_from(encoder, predictor)
      memory = Memory(learner=learner.memory(
          online, jax.random.key(0),
          jnp.zeros((1, parity.SIZE, parity.SIZE, 3))))
      client = small.client(0, fedu_jax.init_clients(
          online, np.array([1]), memory=memory))
      state = learner.init(client, jnp.int32(0))

      moco = torch_fedu.MoCo(
          encoder, torch.tensor(np.asarray(memory.learner.queue)), 0.99,
          0.2) if name == 'moco' else None
      params = [*encoder.parameters()] + (
          [*predictor.parameters()] if name == 'simsiam' else [])
      optimiser = torch.optim.SGD(params, lr=parity.RATE['float64'],
                                  momentum=0.9, weight_decay=5e-4)
      step = jax.jit(learner.step)
      for s in range(2):
        x1, x2 = map(parity.to_torch, parity.pair(s))
        loss = {'simsiam': lambda: torch_fedu.simsiam_loss(
                    encoder, predictor, x1, x2),
                'simclr': lambda: torch_fedu.simclr_loss(
                    encoder, x1, x2, 0.07),
                'moco': lambda: moco.loss(x1, x2)}[name]()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        state, metrics = step(state, parity.marked(s), jax.random.key(s))
        parity.check(metrics['loss'], array(loss), 'float64')
      after = learner.final(client, state)
      parity.check(after.online.encoder, from_torch(encoder), 'float64')
      if name == 'simsiam':
        parity.check(after.online.predictor, from_torch(predictor), 'float64')
      if name == 'moco':
        parity.check(after.target, from_torch(moco.key), 'float64')
        parity.check(after.memory.learner.queue, array(moco.queue), 'float64')
        assert after.memory.learner.next == moco.pointer == 0
  finally:
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize('name', ['simsiam', 'moco', 'fedsc', 'simclr'])
def test_views_together_give_the_same_step(name, monkeypatch):
  """Up to rounding; MoCo passes its views in both orders."""
  choices = {'queue_size': QUEUE} if name == 'moco' else {}
  ends = [run(make(name, **choices))]
  monkeypatch.setattr(small, 'NETS', small.NETS._replace(together=True))
  ends.append(run(make(name, **choices)))
  small.check_close(*ends, rtol=2e-3, atol=1e-5)
