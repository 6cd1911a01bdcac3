"""Pieces as a user would write them after reading docs/swapping.md."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax import Learner
from fedu_jax.models.networks import Nets

CALLS = []  # a state of Python's own, outside of JAX


def loss(prediction, target):
  """[B, D], [B, D] -> [B]."""
  return jnp.abs(prediction - target).sum(-1)


class Flat(nn.Module):
  """One matrix at the root of params: no convolution, BatchNorm or projector.
  """
  units: int

  @nn.compact
  def __call__(self, x, *, train):
    del train
    x = x.reshape(len(x), -1)
    kernel = self.param('kernel', nn.initializers.lecun_normal(),
                        (x.shape[-1], self.units))
    return x @ kernel


def network(*, features):
  """Takes one of the fields of config.model."""
  return Nets(Flat(features), Flat(features))


def learner(nets, view, *, make_tx):
  """Makes two views similar; reports no loss, but a vector and a count."""
  def init(client, round_):
    return client.online, make_tx(round_).init(client.online.encoder.params)

  def step(state, images, rng):
    online, opt_state = state
    x1, x2 = (view(images, key) for key in jax.random.split(rng))

    def apart(params):
      z1, z2 = (nets.encoder.apply({'params': params}, x, train=True)
                for x in (x1, x2))
      return jnp.mean((z1 - z2)**2)
    grads = jax.grad(apart)(online.encoder.params)
    updates, opt_state = make_tx(0).update(grads, opt_state,
                                           online.encoder.params)
    params = jax.tree.map(jnp.add, online.encoder.params, updates)
    encoder = online.encoder._replace(params=params)
    metrics = {'brightness': x1.mean((0, 1, 2)), 'images': len(images) + 0 *
               images.sum(dtype=jnp.int32), 'feature_std': z_of(x1)}
    return (online._replace(encoder=encoder), opt_state), metrics

  def final(client, state):
    return client._replace(online=state[0])
  return Learner(init, step, final)


def z_of(x):
  return jnp.stack([x.std(), 0 * x.std()])


def silent_learner(nets, view):
  """Trains nothing and reports nothing."""
  del nets, view
  return Learner(lambda client, round_: (), lambda state, images, rng: (
      state, {}), lambda client, state: client)


def aggregation(server, clients):
  """The plain mean; also notes in Python that it was called."""
  CALLS.append(clients.num_examples.shape)
  online = jax.tree.map(lambda x: x.mean(0), clients.online)
  return server._replace(online=online, round=server.round + 1)


def rule(client, server):
  return client._replace(online=server.online)


def sampling(rng, num_examples, *, size):
  """With replacement."""
  return jax.random.randint(rng, (size,), 0, len(num_examples))


def wrong_sampling(rng, num_examples, *, size):
  return jax.random.uniform(rng, (size + 1,))


def partition(labels, num_clients, rng):
  """All clients own the same first half, in a list; the rest has no owner."""
  del rng
  return [list(range(len(labels) // 2))] * num_clients


def empty_partition(labels, num_clients, rng):
  del rng
  return [[], *[np.arange(len(labels))] * (num_clients - 1)]


def one_part(labels, num_clients, rng):
  del num_clients, rng
  return [np.arange(len(labels))]


def numbers_beyond(labels, num_clients, rng):
  del rng
  return [np.arange(len(labels)) + 1] * num_clients


def masks(labels, num_clients, rng):
  del rng
  return [np.ones(len(labels), bool)] * num_clients


def divergence(a, b):
  return jnp.max(jnp.abs(a['kernel'] - b['kernel']))


def vector_divergence(a, b):
  return jnp.abs(a['kernel'] - b['kernel'])
