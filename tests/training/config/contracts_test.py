"""The table of docs/swapping.md is a contract: a foreign piece for each row."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import smoke
import fedu_jax
from fedu_jax.core import trees
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import semi_supervised
from fedu_jax.models.networks import Nets
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import prepare
from fedu_jax.training import train
from fedu_jax.training.config import build
from fedu_jax.training.config import contracts
from fedu_jax.training.config import pieces
from fedu_jax.training.engine import round_program
from tests.helpers import small
from tests.helpers import strangers

FLAT = strangers.network(features=4)


@functools.cache
def a_round(nets=None, learner=None, **pieces):
  """Runs a round of two clients with some of our pieces replaced."""
  nets = nets or FLAT
  online = fedu_jax.init_online(nets, jax.random.key(0),
                                jnp.zeros((2, small.SIZE, small.SIZE, 3)))
  _, _, batches = small.federation(sizes=(8, 8))
  clients = fedu_jax.init_clients(online, np.array([8, 8]))
  server = fedu_jax.ServerState(online, jnp.int32(0))
  make_learner = learner or functools.partial(
      fedu_jax.byol, make_tx=small.make_tx)
  choices = dict(aggregate=fedu_jax.aggregate,
                 rule=fedu_jax.global_predictor) | pieces
  local = functools.partial(
      fedu_jax.local_update, learner=make_learner(nets, small.view),
      distance=choices.pop('distance', trees.squared_distance))
  return jax.jit(functools.partial(
      fedu_jax.run_round, local_update=local, **choices))(
          server, clients, batches, jax.random.key(1))


def test_a_loss():
  _, _, metrics = a_round(learner=functools.partial(
      fedu_jax.byol, make_tx=small.make_tx, loss=strangers.loss))
  assert np.isfinite(metrics['loss']).all()


def test_a_method_with_metrics_of_its_own():
  server, _, metrics = a_round(learner=functools.partial(
      strangers.learner, make_tx=small.make_tx))
  assert 'loss' not in metrics
  assert metrics['brightness'].shape == (2, 3)
  np.testing.assert_array_equal(metrics['images'], small.BATCH)
  assert np.isfinite(server.online.encoder.params['kernel']).all()


def test_a_method_without_metrics():
  _, _, metrics = a_round(learner=strangers.silent_learner)
  assert metrics['steps'].tolist() == [2, 2]
  np.testing.assert_array_equal(metrics['divergence'], 0)


def test_an_aggregation_a_rule_and_a_divergence():
  server, clients, metrics = a_round(
      aggregate=strangers.aggregation, rule=strangers.rule,
      distance=strangers.divergence)
  assert strangers.CALLS[-1] == (2,) and server.round == 1
  np.testing.assert_allclose(
      server.online.encoder.params['kernel'],
      clients.online.encoder.params['kernel'].mean(0), rtol=1e-6)
  assert (metrics['divergence'] > 0).all()


def test_a_network_without_convolutions_batchnorm_or_projector():
  """A kernel at the root has no layer name. Other divergences measure it."""
  server, _, metrics = a_round()
  assert not [name for name in metrics if name.startswith('divergence/')]
  assert server.online.encoder.batch_stats == {}
  images = small.images(8)
  z = fedu_jax.embed(probes.features, FLAT.encoder, server.online.encoder,
                     images)
  assert z.shape == (8, 4)  # its output, for want of anything below
  accuracy = semi_supervised.semi_supervised(
      FLAT.encoder, server.online.encoder, images, np.arange(8) % 2, images,
      np.arange(8) % 2, jax.random.key(0), num_classes=2, hidden=4, epochs=2)
  assert 0 <= accuracy <= 1


@pytest.mark.parametrize('params', [
    {'kernel': np.ones(3)}, np.ones(3), [np.ones(3), {'kernel': np.ones(2)}],
    ({'conv1': [np.ones(3)]},), {}, fedu_jax.Batches(1., 2., 3., 4.)])
def test_parameters_in_any_container(params):
  moved = jax.tree.map(lambda x: x + 1, params)
  assert trees.conv_distances(params, moved) == {}
  assert trees.squared_distance(params, moved) == sum(
      np.size(x) for x in jax.tree.leaves(params))
  with pytest.raises(ValueError, match='squared_distance'):
    trees.conv_distance(params, moved)


def test_a_convolution_is_found_in_any_container():
  class Layers(fedu_jax.Variables):
    """Named by attributes."""
  a = Layers({'conv1': {'kernel': jnp.zeros(4)}}, [{'kernel': jnp.zeros(9)}])
  b = jax.tree.map(lambda x: x + 1, a)
  assert {name: float(x) for name, x in trees.conv_distances(a, b).items()} == {
      'params/conv1': 2.0}


def test_the_whole_program_with_foreign_pieces(tmp_path):
  """All rows of the table at once, trained, reported and scored."""
  config = smoke.get_config()
  for section in ('loss', 'learner', 'aggregation', 'rule', 'sampling',
                  'partition', 'divergence'):
    config[section].name = f'tests.helpers.strangers:{section}'
  config.model.name = 'tests.helpers.strangers:network'
  config.cohort = 3
  config.data.max_examples = 200
  config.evaluation.every = 1
  with open(tmp_path / 'said', 'w') as said:
    summary = train.train_and_evaluate(
        config, str(tmp_path / 'run'),
        console=terminal.console(said, width=200))
  assert 0 < summary['linear_accuracy'] <= 1
  rows = [json.loads(line) for line in
          (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  assert len(rows) == 2 and 'loss' not in rows[0]
  assert np.shape(rows[0]['clients']['brightness']) == (3, 3)
  text = (tmp_path / 'said').read_text()
  assert 'round    1  knn' in text and 'loss' not in text


@pytest.mark.parametrize('name, match', [
    ('empty_partition', 'client 0 has 0 images'), ('one_part', '1 parts'),
    ('numbers_beyond', 'numbers from 1 to 20'), ('masks', 'bool')])
def test_partitions_that_break_the_contract(name, match):
  config = smoke.get_config()
  config.partition.name = f'tests.helpers.strangers:{name}'
  images = np.zeros((20, 8, 8, 3), np.uint8)
  data = fedu_jax.sources.Dataset(
      images, np.arange(20) % 10, images, np.arange(20) % 10)
  with pytest.raises(BadInput, match=match):
    prepare.parts_of(config, data)


def test_a_sampling_that_breaks_the_contract():
  config = smoke.get_config()
  config.sampling.name = 'tests.helpers.strangers:wrong_sampling'
  config.cohort = 2
  with pytest.raises(BadInput, match='must return 2 whole numbers'):
    round_program.draw_cohort(
        build.recipe(config), jax.random.key(0), 0, jnp.ones(5))


@pytest.mark.parametrize('nets', [
    FLAT.encoder, (FLAT.encoder,),
    Nets(fedu_jax.networks.nn.Dense(4), FLAT.predictor)])
def test_networks_that_break_the_contract(nets):
  with pytest.raises(BadInput, match='model mine:net'):
    contracts.online(nets, jax.random.key(0), jnp.zeros((2, 6, 6, 3)),
                     name='mine:net')


@pytest.mark.parametrize('measure, match', [
    (trees.conv_distance, "no layer has 'conv'"),
    (strangers.vector_divergence, 'one float')])
def test_divergences_that_break_the_contract(measure, match):
  with pytest.raises(BadInput, match=match):
    contracts.divergence(measure, {'kernel': jnp.zeros(3)}, name='mine')


def test_all_strangers_are_called_as_the_table_says():
  for section in ('loss', 'learner', 'aggregation', 'rule', 'sampling',
                  'partition', 'divergence'):
    pieces.find(section, f'tests.helpers.strangers:{section}')
