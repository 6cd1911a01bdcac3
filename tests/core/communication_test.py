"""The bytes that methods send: counted by hand, and enough for what is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import methods
import fedu_jax
from fedu_jax.core import communication
from fedu_jax.core import method
from fedu_jax.training import forecast
from fedu_jax.training import round_report
from fedu_jax.training.config import binding
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import round_program
from tests.helpers import small
from tests.helpers import tiny

K, M, BATCH = 6, 3, 32
WIDTH, HIDDEN = 2, 16


def config_of(name='fedu', **changes):
  """A cohort of three of six clients, with a network counted by hand below."""
  config = tiny.get_config()
  config.clients, config.cohort, config.batch_size = K, M, BATCH
  methods.METHODS[name](config)
  config.update_from_flattened_dict(
      {'model.width': WIDTH, 'model.hidden': HIDDEN} | changes)
  checks.check(config)
  return config


def shapes(config):
  nets = binding.bind(config, 'model')()
  online = jax.eval_shape(lambda: fedu_jax.init_online(
      nets, jax.random.key(0), jnp.zeros((2, 8, 8, 3))))
  return round_program.shapes(build.recipe(config), online, (8, 8, 3))


def sent(config):
  server, client, _ = shapes(config)
  return round_program.sent(build.recipe(config), server, client,
                            config.clients)


def head(inputs, features, layers):
  """Counts the numbers in an MLP: kernels, biases, and BatchNorm's four per
  unit.
  """
  return {0: 0, 1: inputs * features + features,
          2: inputs * HIDDEN + HIDDEN + 4 * HIDDEN
             + HIDDEN * features + features}[layers]


def network(features=8, projector=2, predictor=2):
  """Counts the bytes of the online network, a ResNet-6 and its heads."""
  w = WIDTH
  kernels = 9 * (3 * w + w * w + w * w + w * 2 * w + 2 * w * 2 * w) + w * 2 * w
  norms = 4 * (w + w + w + 2 * w + 2 * w + 2 * w)
  return 4 * (kernels + norms + head(2 * w, features, projector)
              + head(features if projector else 2 * w, features, predictor))


@pytest.mark.parametrize('name, alone', [
    ('fedu', network()), ('fedema_auto', network()), ('ldawa', network()),
    ('simsiam', network()), ('simclr', network(predictor=0)),
    # The queue of 8,192 keys stays with the client.
    ('moco', network(features=128, projector=1, predictor=0)),
    ('supervised', network(features=10, projector=0, predictor=1)),
    ('no_ema', network())])
def test_most_methods_move_the_online_network(name, alone):
  assert sent(config_of(name)) == (alone, alone)


def test_what_fedavg_of_targets_moves():
  """A target encoder is as large as an online one."""
  config = config_of(**{'aggregation.name': 'fedavg_target'})
  assert sent(config) == (network(), network())
  server, client, _ = shapes(config)
  upload = binding.aggregation(config).upload(client, M)
  assert upload.encoder is client.target
  assert upload.predictor is client.online.predictor


def test_fedsc_also_moves_second_moments():
  """A client sends [D, D]; it receives the mean of them and a number of images.
  """
  alone, moments = network(predictor=0), 4 * 8 * 8
  assert sent(config_of('fedsc')) == (alone + moments, alone + moments + 4)


@pytest.mark.parametrize('cohort, share', [(M, 85), (0, 42), (5, 51)])
def test_fedca_also_moves_keys_and_the_dictionary(cohort, share):
  """A client sends N // M keys and a tag; it receives N entries with owners."""
  found = sent(config_of('fedca', cohort=cohort))
  alone = network(predictor=0)
  assert found == (alone + 4 * 8 * share + 4, alone + 4 * 256 * (8 + 1))


def test_a_researchers_own_functions_move_the_online_network():
  server, client, _ = shapes(config_of('fedsc'))

  def mean(server, clients):
    del clients
    return server

  def fresh(client, server):
    del server
    return client
  alone = network(predictor=0)
  rule = method.rule_of(fresh)
  assert communication.of(method.aggregation_of(mean), rule, server, client, M
                          ) == (alone, alone)
  declared = method.Aggregation(mean, upload=lambda client, cohort: (
      client.num_examples, client.divergence))
  assert communication.of(declared, rule, server, client, M) == (8, alone)


def test_a_round_counts_the_uploads_that_arrive():
  """One of three uploads is lost. One that arrives is not sound, and counts."""
  metrics = {
      'cohort': np.arange(3), 'arrived': np.array([True, True, False]),
      'sound': np.array([True, False, True]), 'steps': np.ones(3, int),
      'global_predictor': np.zeros(3, bool), 'loss': np.ones(3),
      'divergence': np.ones(3)}
  row = round_report.row_of(1, metrics, 1., batch_size=BATCH,
                            sent=communication.Sent(70, 11))
  assert (row['bytes_up'], row['bytes_down']) == (140, 33)


def test_a_plan_follows_what_is_declared(monkeypatch):
  """The plan counts uploads and downloads as the method declares them."""
  monkeypatch.setattr(forecast, '_memory', lambda *_: (10**6, ''))
  config = config_of('fedsc')
  found = forecast.forecast(config, forecast.data_of(config),
                            forecast.Machine(1, 1e12, 1e12))
  up, down = sent(config)
  assert (found.sizes.upload, found.sizes.download, found.sizes.network) == (
      up, down, network(predictor=0))
  lines = {x.what: x.value for x in cost_model.traffic(
      found.sizes._replace(group=2, groups=2, steps=1))}
  assert lines['from the server to clients'] == M * down
  assert lines['from clients to the server'] == M * up
  assert lines['all-reduce, from each device'] == up
  assert lines['shared batches, from each device'] == network(predictor=0)


@pytest.mark.parametrize('name, changes', [
    ('fedu', {}), ('fedu', {'aggregation.name': 'fedavg_target'}),
    ('ldawa', {}), ('fedca', {}), ('fedsc', {})])
def test_an_aggregation_reads_what_it_declares_and_no_more(name, changes):
  """All other numbers of the clients are absurd, and the server is the same."""
  config = config_of(name, **changes)
  server, client, _ = jax.tree.map(
      lambda x: np.zeros(x.shape, np.int32 if 'key' in str(x.dtype)
                         else x.dtype), shapes(config))
  clients = small.noise(jax.tree.map(lambda x: np.stack([x] * M), client))
  clients = clients._replace(num_examples=jnp.array([8., 0., 4.]))
  server = small.noise(server, seed=1)
  aggregate, declared, _ = binding.aggregation(config)
  # Which numbers are sent: those whose own mark is found in the upload.
  leaves, tree = jax.tree.flatten(client)
  ends = np.cumsum([0, *(x.size for x in leaves)])
  marked = jax.tree.unflatten(tree, [
      np.arange(a, b, dtype=np.int32).reshape(x.shape)
      for a, b, x in zip(ends, ends[1:], leaves)])
  marks = np.concatenate([np.ravel(x) for x in jax.tree.leaves(
      declared(marked, M))])
  absurd = jax.tree.map(lambda x, mark: jnp.where(
      np.isin(mark, marks), x, jnp.full_like(x, -77)), clients, marked)
  absurd = absurd._replace(num_examples=clients.num_examples)
  assert not all(jax.tree.leaves(jax.tree.map(
      np.array_equal, clients, absurd)))
  small.check_equal(aggregate(server, clients), aggregate(server, absurd))
