"""Our JAX code against an independent PyTorch implementation of the method.

Both get the same weights and the same views. float64 must agree to 1e-8 in
every number, float32 to 1e-4 of each tensor's norm (numbers near zero have no
relative error of their own). PyTorch always computes in float64: its float32
gradients of these narrow networks are off by up to 7e-3, ours by 2e-5. At full
size this differs: see `benchmarks/precision_bench.py`. Whole federations are in
`rounds_parity_test.py`, scores and the schedule of the learning rate in
`scores_parity_test.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedu_jax
from fedu_jax.core import trees
from fedu_jax.core.state import ServerState
from fedu_jax.learners.byol import StepState
from fedu_jax.models import networks

torch = pytest.importorskip(
    'torch', reason="parity needs PyTorch: pip install -e '.[parity]'")
from tests.helpers import torch_fedu  # noqa: E402
from tests.helpers.torch_weights import array  # noqa: E402
from tests.helpers.torch_weights import from_torch  # noqa: E402
from tests.helpers.torch_weights import online_from  # noqa: E402

WIDTH, HIDDEN, FEATURES = 4, 24, 16
DECAY, BATCH, SIZE = 0.99, 16, 11
# A net this narrow moves so far in a step of the reference's rate that rounding
# grows severalfold with each: float64 is held to the real rate, float32 to a
# gentle one, which shows forward passes and gradients; the optimiser and the
# moving average are float64's to check.
RATE = {'float64': 0.032, 'float32': 0.0003}

KINDS = {
    'resnet18': (networks.resnet18, torch_fedu.Block, (2, 2, 2, 2)),
    'resnet50': (networks.resnet50, torch_fedu.Bottleneck, (3, 4, 6, 3))}


@pytest.fixture(params=['float64', 'float32'])
def dtype(request):
  with jax.enable_x64(request.param == 'float64'):
    torch.set_default_dtype(torch.float64)
    yield request.param
    torch.set_default_dtype(torch.float32)


def make(kind, seed=0):
  """Makes the PyTorch networks and our modules for them."""
  ours, block, stages = KINDS[kind]
  torch.manual_seed(seed)
  encoder = torch_fedu.Encoder(block, stages, WIDTH, HIDDEN, FEATURES)
  predictor = torch_fedu.mlp(FEATURES, HIDDEN, FEATURES)
  return encoder, predictor, ours(width=WIDTH, hidden=HIDDEN,
                                  features=FEATURES)


def check(ours, theirs, dtype):
  """Compares two trees and their structures."""
  whole = np.sqrt(sum(np.sum(np.square(np.asarray(x, np.float64)))
                      for x in jax.tree.leaves(theirs)))
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  paths = jax.tree_util.tree_leaves_with_path(ours)
  for (path, a), b in zip(paths, jax.tree.leaves(theirs)):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    name = jax.tree_util.keystr(path)
    if dtype == 'float64':
      np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8, err_msg=name)
    else:
      # A bias before BatchNorm has no gradient but rounding: hence the floor.
      error = np.linalg.norm(a - b) / max(np.linalg.norm(b), whole / 100)
      assert error < 1e-4, (name, error)


def images(seed):
  """Random images with odd sizes, which 'SAME' would pad in another way.

  Each has its own colour and coarse pattern. Images of noise alone have equal
  pooled features, and BatchNorm would magnify float32's rounding.
  """
  draw = np.random.RandomState(seed)
  x = (draw.uniform(size=(BATCH, 1, 1, 3))
       + draw.uniform(size=(BATCH, 3, 3, 3)).repeat(4, 1).repeat(4, 2)) / 2
  return x[:, :SIZE, :SIZE]


def to_torch(x):
  return torch.tensor(x.transpose(0, 3, 1, 2))


def pair(step):
  """The two views of a step that `view` would draw."""
  return images(2 * step), images(2 * step + 1)


@pytest.mark.parametrize('kind', list(KINDS))
def test_forward(kind, dtype):
  encoder, _, nets = make(kind)
  x = images(0)
  variables = from_torch(encoder)
  encoder.train()
  want = encoder(to_torch(x))
  got, after = networks.forward(nets.encoder, variables, x)
  check(got, array(want), dtype)
  check(after, from_torch(encoder), dtype)  # every buffer moved alike
  encoder.eval()
  check(nets.encoder.apply(after._asdict(), x, train=False),
        array(encoder(to_torch(x))), dtype)
  check(nets.encoder.apply(after._asdict(), x, train=False, method='features'),
        array(encoder.backbone(to_torch(x))), dtype)


def make_tx(dtype):
  return lambda round_: optax.chain(optax.add_decayed_weights(5e-4),
                                    optax.sgd(RATE[dtype], momentum=0.9))


def fixed_views():
  """Makes a view that returns the pairs of steps 0, 1, ... in order.

  The first pixel of the uint8 image has the number of the step. The order tells
  the two calls of a step apart.
  """
  both = [jnp.stack([jnp.asarray(pair(s)[i]) for s in range(8)])
          for i in (0, 1)]
  calls = []
  def view(marked, rng):
    del rng
    calls.append(None)
    return both[(len(calls) - 1) % 2][marked[0, 0, 0, 0]]
  return view


def marked(step):
  return jnp.full((BATCH, SIZE, SIZE, 3), step, jnp.uint8)


def test_loss_and_gradients(dtype):
  encoder, predictor, nets = make('resnet18')
  target, _, _ = make('resnet18', seed=1)
  online, target_ours = online_from(encoder, predictor), from_torch(target)
  loss = torch_fedu.loss_fn(encoder, predictor, target,
                            *map(to_torch, pair(0)))
  loss.backward()

  keep = optax.GradientTransformation(  # remembers the gradient as its state
      lambda params: params,
      lambda grads, _, params: (jax.tree.map(jnp.zeros_like, grads), grads))
  params = (online.encoder.params, online.predictor.params)
  state = StepState(online, target_ours, params, jnp.int32(0), jnp.array(False))
  after, metrics = jax.jit(functools.partial(
      fedu_jax.byol_step, nets=nets, view=fixed_views(),
      make_tx=lambda _: keep, decay=DECAY))(state, marked(0), jax.random.key(0))
  check(metrics['loss'], jnp.asarray(loss.item()), dtype)
  for module in (encoder, predictor):
    for p in module.parameters():
      p.data = p.grad
  check(after.opt_state, (from_torch(encoder).params,
                          from_torch(predictor).params), dtype)


@pytest.mark.parametrize('first_target', ['copy', 'alias'])
def test_three_steps(first_target, dtype):
  encoder, predictor, nets = make('resnet18')
  client = fedu_jax.init_clients(online_from(encoder, predictor),
                                 np.array([BATCH]))
  client = jax.tree.map(lambda x: x[0], client)
  learner = fedu_jax.byol(nets, fixed_views(), make_tx=make_tx(dtype),
                          decay=DECAY, first_target=first_target)
  state = learner.init(client, jnp.int32(0))

  theirs = torch_fedu.Client(BATCH)
  theirs.download(encoder, predictor, alias=first_target == 'alias')
  losses, drift = theirs.train([tuple(map(to_torch, pair(s)))
                                for s in range(3)], RATE[dtype], DECAY, 0.4)

  step = jax.jit(learner.step)
  for s in range(3):
    state, metrics = step(state, marked(s), jax.random.key(s))
    check(metrics['loss'], jnp.asarray(losses[s]), dtype)
  check(state.online, online_from(theirs.encoder, theirs.predictor), dtype)
  check(state.target, from_torch(theirs.target), dtype)
  start = online_from(encoder, predictor).encoder.params
  got = fedu_jax.trees.conv_distance(start, state.online.encoder.params)
  check(got, array(drift), dtype)


@pytest.mark.parametrize('dtype', ['float64'], indirect=True)
@pytest.mark.parametrize('first_target, execution', [
    ('copy', 'map'), ('alias', 'vmap')])
def test_two_rounds_of_three_clients(first_target, execution, dtype):
  """Unequal sizes, partial steps, a threshold between the divergences."""
  encoder, predictor, nets = make('resnet18')
  counts, steps = [3 * BATCH, 2 * BATCH, BATCH], [3, 2, 1]
  work = [[tuple(map(to_torch, pair((k + r * 3 + s) % 8)))
           for s in range(steps[k])] for r in range(2) for k in range(3)]

  # First without DAPU's decision, to find a threshold that splits the clients.
  clients = [torch_fedu.Client(n) for n in counts]
  global_encoder, global_predictor = encoder, predictor
  drifts = first_decisions = None
  for r in range(2):
    for client in clients:
      client.download(global_encoder, global_predictor, first_target == 'alias')
    found = [client.train(work[3 * r + k], RATE[dtype], DECAY, 0.0)[1].item()
             for k, client in enumerate(clients)]
    drifts = drifts or found
    threshold = sorted(drifts)[1] * 1.0001  # two below, one above
    for client, drift in zip(clients, found):
      client.use_global = drift < threshold
    first_decisions = first_decisions or [c.use_global for c in clients]
    global_encoder = torch_fedu.average([c.encoder for c in clients], counts)
    global_predictor = torch_fedu.average([c.predictor for c in clients],
                                          counts)

  online = online_from(encoder, predictor)
  server = ServerState(online, jnp.int32(0))
  ours = fedu_jax.init_clients(online, np.array(counts))
  local_update = functools.partial(fedu_jax.local_update, learner=fedu_jax.byol(
      nets, fixed_views(), make_tx=make_tx(dtype), decay=DECAY,
      first_target=first_target))
  rule = functools.partial(fedu_jax.dapu, threshold=threshold)
  round_ = jax.jit(functools.partial(
      fedu_jax.run_round, local_update=local_update,
      aggregate=fedu_jax.aggregate, execution=execution, rule=rule))
  decisions = []
  for r in range(2):
    stacked = np.zeros((3, counts[0], SIZE, SIZE, 3), np.uint8)
    index = np.zeros((3, 3, BATCH), np.int32)
    for k in range(3):
      for s in range(steps[k]):
        index[k, s] = BATCH * s + np.arange(BATCH)
        stacked[k, index[k, s]] = (k + r * 3 + s) % 8
    mask = np.arange(3)[None] < np.array(steps)[:, None]
    batches = fedu_jax.Batches(jnp.asarray(stacked), jnp.asarray(index),
                               jnp.asarray(mask), jnp.full(3, r, jnp.int32))
    server, ours, metrics = round_(server, ours, batches, jax.random.key(0))
    decisions.append(metrics['global_predictor'].tolist())
  # A round's are those of its download, made of the drift of the one before.
  assert decisions == [[True] * 3, first_decisions]
  assert set(first_decisions) == {True, False}  # the case is not trivial
  next_ = jax.vmap(rule, in_axes=(0, None))(ours, server).online.predictor
  for k, client in enumerate(clients):
    assert client.use_global == trees.equal(
        jax.tree.map(lambda x, k=k: x[k], next_), server.online.predictor)
  check(metrics['divergence'], jnp.asarray(found), dtype)
  check(server.online, online_from(global_encoder, global_predictor), dtype)
  for k, client in enumerate(clients):
    check(jax.tree.map(lambda x, k=k: x[k], ours.target),
          from_torch(client.target), dtype)
