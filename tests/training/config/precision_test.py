"""What training, evaluation, the crop and FedSC's moments are computed in."""

import functools

from flax import linen as nn
import jax
from jax.lax import Precision
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10
import fedu_jax
from fedu_jax.core import precision as precision_lib
from fedu_jax.core import rounds
from fedu_jax.core import trees
from fedu_jax.core.aggregation import AGGREGATIONS
from fedu_jax.core.method import aggregation_of
from fedu_jax.core.state import Memory
from fedu_jax.evaluation import encoder_scores
from fedu_jax.evaluation import geometry
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import protocols
from fedu_jax.learners import augment
from fedu_jax.learners import fedsc
from fedu_jax.models import networks
from fedu_jax.training.config import build
from tests.helpers import products
from tests.helpers import small

BATCH, SIDE = 4, 8
FULL = (Precision.HIGHEST,) * 2
ASKED = {'default': None, 'tensorfloat32': (Precision.HIGH,) * 2,
         'float32': FULL}
METHODS: dict[str, dict[str, int]] = {
    'byol': {}, 'simclr': {}, 'moco': {'queue_size': 16}}


def config_of(learner='byol', **model):
  config = cifar10.get_config()
  config.model.update(dict(name='resnet6', width=4, hidden=8, features=4)
                      | model)
  config.learner.update(name=learner, **METHODS[learner])
  config.batch_size = BATCH
  return config


def prepared(config):
  """Returns a recipe's step and its arguments."""
  recipe = build.recipe(config)
  image = jnp.zeros((1, SIDE, SIDE, 3))
  online = networks.init_online(recipe.nets, jax.random.key(0), image)
  memory = Memory(learner=recipe.learner.memory(
      online, jax.random.key(1), image))
  client = small.client(0, fedu_jax.init_clients(
      online, np.array([BATCH]), memory=memory))
  pixels = np.random.RandomState(0).randint(
      0, 256, (BATCH, SIDE, SIDE, 3)).astype(np.uint8)
  return recipe.learner.step, (recipe.learner.init(client, jnp.int32(0)),
                               jnp.asarray(pixels), jax.random.key(2))


@pytest.mark.parametrize('precision', ASKED)
@pytest.mark.parametrize('learner', METHODS)
def test_it_reaches_each_product_of_a_step(learner, precision):
  """Convolutions, dense layers, losses and their gradients; not the crop.

  The walk counts the products for a CPU and those for other backends. The crop
  of each view has two, always in full.
  """
  step, args = prepared(config_of(learner, precision=precision))
  found = products.of(step, *args)
  kinds = [product.precision for product in found]
  crop = 2 * 2
  for primitive in ('dot_general', 'conv_general_dilated'):
    assert sum(p.primitive == primitive for p in found) > 10
  if precision == 'float32':
    assert set(kinds) == {FULL}
  else:
    assert kinds.count(FULL) == crop
    assert kinds.count(ASKED[precision]) == len(kinds) - crop


@pytest.mark.parametrize('learner', METHODS)
def test_matrix_products_of_a_bfloat16_step_are_summed_in_float32(learner):
  step, args = prepared(config_of(learner, dtype='bfloat16'))
  found = [p for p in products.of(step, *args)
           if p.factors == ('bfloat16', 'bfloat16')]
  dense = [p for p in found if p.primitive == 'dot_general']
  assert len(dense) >= 6 and {p.dtype for p in dense} == {'float32'}
  maps = [p for p in found if p.primitive == 'conv_general_dilated']
  assert len(maps) > 10


def test_a_step_on_a_cpu_has_the_same_bits_with_each():
  results = []
  for precision in ASKED:
    step, args = prepared(config_of(precision=precision))
    results.append(jax.jit(step)(*args))
  for other in results[1:]:
    small.check_equal(results[0], other)


def test_exact_convolutions_stay_exact():
  step, args = prepared(config_of(convolution='exact'))
  assert {p.precision for p in products.of(step, *args)
          if p.primitive == 'dot_general'} >= {None}
  whole = [p for p in products.of(step, *args)
           if p.primitive == 'conv_general_dilated' and p.precision == FULL]
  assert len(whole) > 10


# --- always in full --------------------------------------------------------


class Bare(nn.Module):
  """Layers that ask for no precision; on features, the dense one alone."""

  @nn.compact
  def __call__(self, x, *, train):
    del train
    if x.ndim == 4:
      x = nn.Conv(2, (3, 3))(x).mean((1, 2))
    return nn.Dense(3)(x)


@pytest.fixture
def traced(monkeypatch):
  """Collects the precision of each product that is traced in a test."""
  found = []
  jax.clear_caches()  # a function in a cache would not be traced again
  for primitive in (jax.lax.dot_general_p, jax.lax.conv_general_dilated_p):
    def bind(*args, original=primitive.bind, name=primitive.name, **params):
      found.append((name, params['precision']))
      return original(*args, **params)
    monkeypatch.setattr(primitive, 'bind', bind)
  yield found
  jax.clear_caches()


@pytest.mark.parametrize('protocol', protocols.PROTOCOLS)
def test_each_protocol_computes_in_full(protocol, traced, monkeypatch):
  """With any network: this one asks for nothing."""
  count = 12
  draw = np.random.RandomState(0)
  pixels = draw.randint(0, 256, (count, 4, 4, 3)).astype(np.uint8)
  labels = (np.arange(count) % 3).astype(np.int32)
  nets = networks.Nets(Bare(), Bare())
  online = networks.init_online(nets, jax.random.key(0),
                                jnp.zeros((1, 4, 4, 3)))
  scorer = encoder_scores.Scorer(
      nets, pixels, labels, pixels, labels,
      small.SETTINGS._replace(probe_epochs=2, semi_epochs=2), 0,
      classifies=True)
  monkeypatch.setattr(protocols.sources, 'load', lambda *_, **__: scorer)
  traced.clear()
  choice = {'semi': '0.5', 'finetune': '0.5', 'transfer': 'digits'}
  protocols.PROTOCOLS[protocol].score(scorer, online, choice.get(protocol, ''))
  assert ('conv_general_dilated', FULL) in traced
  assert {precision for _, precision in traced} == {FULL}


@pytest.mark.parametrize('score', [
    lambda x, y: probes.knn_accuracy(x, y, x, y, k=2),
    lambda x, y: geometry.uniformity(x),
    lambda x, y: probes.linear_probe(x, y, x, y, jax.random.key(0),
                                     num_classes=2, epochs=1)])
def test_each_score_of_features_computes_in_full(score, traced):
  """For a caller of the library, without a protocol."""
  score(jnp.eye(4) + 1, np.array([0, 1, 0, 1]))
  assert traced and {precision for _, precision in traced} == {FULL}


def test_statistics_of_an_untrained_encoder_are_in_full(traced):
  scorer = encoder_scores.Scorer(
      small.NETS, small.images(8), np.zeros(8, int), small.images(2),
      np.zeros(2, int), small.SETTINGS, 0)
  online = small.online()
  traced.clear()
  scorer.fitted(online)
  assert traced and {precision for _, precision in traced} == {FULL}


@pytest.mark.parametrize('eight_bit', [True, False])
def test_a_view_computes_in_full(eight_bit):
  found = products.of(augment.make_view(eight_bit=eight_bit),
                      jnp.zeros((2, 8, 8, 3), jnp.uint8), jax.random.key(0))
  assert len(found) >= 2 and {p.precision for p in found} == {FULL}


def test_fedscs_moments_are_in_full_and_its_loss_is_as_asked():
  def walk(precision):
    learner = fedsc.fedsc(small.NETS, small.view, make_tx=small.make_tx)
    learner = learner._replace(
        step=precision_lib.computed_in(precision, learner.step))
    memory = Memory(learner=learner.memory(
        small.online(), jax.random.key(5),
        jnp.zeros((1, small.SIZE, small.SIZE, 3))))
    client = small.client(0, fedu_jax.init_clients(
        small.online(), np.array([8]), memory=memory))
    return products.of(
        learner.step, learner.init(client, jnp.int32(0)),
        jnp.asarray(small.images(8)), jax.random.key(0))
  assert sum(p.precision == FULL for p in walk('default')) == 1
  assert {p.precision for p in walk('float32')} == {FULL}


def test_nothing_else_of_a_round_multiplies_matrices():
  """So a round needs no precision around aggregations and divergences."""
  server, clients, batches = small.federation()
  for aggregate in AGGREGATIONS.values():
    found = products.of(functools.partial(
        rounds.run_round, aggregate=aggregation_of(aggregate).fn,
        rule=functools.partial(fedu_jax.dapu, threshold=0.4),
        local_update=functools.partial(
            fedu_jax.local_update, learner=small.counting_learner())),
        server, clients, batches, jax.random.key(0))
    assert not found
  params = small.online().encoder.params
  for divergence in trees.DIVERGENCES.values():
    assert not products.of(divergence, params, params)
