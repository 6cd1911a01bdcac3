"""A small federation for tests, and a learner that can be checked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fedu_jax
from fedu_jax.core.state import ServerState
from fedu_jax.evaluation.encoder_scores import Settings
from fedu_jax.learners.byol import StepState
from fedu_jax.models import layers
from fedu_jax.models import networks
from fedu_jax.models import resnet

# Two blocks, of which the second has a shortcut: all that a ResNet is made of,
# compiled in seconds.
NETS = networks.Nets(
    networks.Encoder(resnet.ResNet(resnet.BasicBlock, (1, 1), 2),
                     layers.MLP(8, 4)), layers.MLP(8, 4))
SIZE, BATCH = 6, 4
SETTINGS = Settings(
    knn_neighbours=5, knn_temperature=0.1, probe_epochs=20,
    probe_batch_size=128, probe_learning_rate=3e-3, probe_standardise=False,
    labels_per_class=0, few_draws=1, semi_hidden=8, semi_epochs=1)


def make_tx(round_):
  return optax.sgd(0.05 / (1 + round_), momentum=0.9)


def view(pixels, rng):
  """Adds noise: random as a view must be, and quick to compile."""
  x = pixels.astype(jnp.float32) / 255
  return x + 0.1 * jax.random.normal(rng, x.shape)


def learner(**choices):
  return fedu_jax.byol(NETS, view, **(dict(make_tx=make_tx) | choices))


@functools.cache
def online():
  return fedu_jax.init_online(NETS, jax.random.key(0),
                              jnp.zeros((2, SIZE, SIZE, 3)))


def images(count, seed=0):
  return np.random.RandomState(seed).randint(
      0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def federation(sizes=(8, 12, 9), epochs=1, round_=0, dtype=jnp.float32):
  """Returns the server, the stacked clients and their batches."""
  start = jax.tree.map(lambda x: x.astype(dtype), online())
  pixels = images(sum(sizes))
  parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
  arrays = fedu_jax.client_arrays(pixels, parts)
  clients = fedu_jax.init_clients(start, np.array(sizes))
  keys = jax.random.split(jax.random.key(7), len(sizes))
  batches = jax.vmap(lambda a, k: fedu_jax.make_batches(
      a, k, jnp.int32(round_), batch_size=BATCH, epochs=epochs))(arrays, keys)
  return ServerState(start, jnp.int32(round_)), clients, batches


def client(k, clients):
  """Returns one client of stacked ones."""
  return jax.tree.map(lambda x: x[k], clients)


def noise(tree, seed=0):
  """Returns a tree of the same shapes with every float made random."""
  draw = np.random.RandomState(seed)
  return jax.tree.map(
      lambda x: jnp.asarray(draw.randn(*x.shape), x.dtype)
      if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def check_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def check_close(a, b, rtol=1e-4, atol=1e-5):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, rtol=rtol, atol=atol), a, b)


def counting_learner():
  """A learner that adds the mean pixel to one weight in each step."""
  def init(client_state, round_):
    return StepState(client_state.online, client_state.target, (), round_,
                     client_state.last_round < 0)
  def step(state, pixels, rng):
    del rng
    encoder = state.online.encoder
    moved = jax.tree.map(lambda x: x + pixels.mean(), encoder.params)
    online_ = state.online._replace(encoder=encoder._replace(params=moved))
    return state._replace(online=online_), {'loss': pixels.mean()}
  def final(client_state, state):
    return client_state._replace(online=state.online)
  return fedu_jax.Learner(init, step, final)
