"""Local training: one client, one round, any SSL method."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from fedu_jax.core import argument_checks
from fedu_jax.core.state import (
    Array, Batches, ClientArrays, ClientState, Learner, Memory, Metrics, Online,
    PyTree)
from fedu_jax.core import trees

Distance = Callable[[PyTree, PyTree], Array]  # encoder params x2 -> []


def init_clients(online: Online, num_examples: ArrayLike, *,
                 memory: Memory = Memory()) -> ClientState:
  """Makes the clients that have not trained yet, stacked.

  Args:
    online: the server's first network; each client starts from it, and so
      does each client's target.
    num_examples: [K], the clients' data sizes.
    memory: what one client's learner or rule remembers, before it has.

  Returns:
    The clients' state; every leaf has a leading axis [K].

  Raises:
    ValueError: the data sizes are no numbers [K].
  """
  if jnp.ndim(num_examples) != 1 or not jnp.size(num_examples):
    raise ValueError(f'num_examples is of shape {jnp.shape(num_examples)}; it '
                     'must be [K], with one client at least')
  num_clients = len(jnp.asarray(num_examples))
  dtype = jnp.result_type(*jax.tree.leaves(online.encoder.params)
                          or [jnp.float32])
  client = ClientState(
      online=online, target=online.encoder, num_examples=jnp.float32(0),
      divergence=jnp.array(jnp.inf, dtype), last_round=jnp.int32(-1),
      uploaded=jnp.array(False), memory=memory)
  clients = jax.tree.map(
      lambda x: jnp.repeat(jnp.asarray(x)[None], num_clients, axis=0), client)
  return clients._replace(num_examples=jnp.asarray(num_examples, jnp.float32))


def client_arrays(images: PyTree, parts: Sequence[np.ndarray],
                  sharding: jax.sharding.Sharding | None = None, *,
                  most: int = 0) -> ClientArrays:
  """Stacks the clients' images, each padded to the largest client's count.

  Args:
    images: [N, H, W, C] u8, everyone's; or a tree of such, as Labelled is.
      What is `Lazy` is read for the clients of this process alone.
    parts: for each client, the rows of `images` that it owns.
    sharding: where the arrays lie; None means on the first device.
    most: pad to so many, where a larger client is not among these.

  Raises:
    ValueError: there are no parts, or they are no rows of `images`.
  """
  argument_checks.parts(parts, len(jax.tree.leaves(images)[0]))
  most = max(most, *map(len, parts))

  def stack(x, clients):
    mine = parts[clients]
    stacked = np.zeros((len(mine), most, *x.shape[1:]), x.dtype)
    for i, part in enumerate(mine):
      stacked[i, :len(part)] = x[part]
    return stacked

  def place(x):
    if sharding is None:
      return jax.device_put(stack(x, slice(None)))
    return jax.make_array_from_callback(
        (len(parts), most, *x.shape[1:]), sharding,
        lambda index: stack(x, index[0] if index else slice(None)))
  sizes = np.array([len(part) for part in parts], np.int32)
  return ClientArrays(
      jax.tree.map(place, images),
      jax.device_put(sizes) if sharding is None else
      jax.make_array_from_callback(sizes.shape, sharding, lambda i: sizes[i]))


def make_batches(arrays: ClientArrays, rng: Array, round: Array, *,
                 batch_size: int, epochs: int) -> Batches:
  """Shuffles one client's examples into a round of batches.

  Each epoch is a fresh permutation and drops its last, incomplete batch
  (EasyFL's `drop_last=True`), so every batch is full. A client with fewer
  examples than the largest one has fewer steps; the rest are masked.

  Args:
    arrays: the client's images, of which the first `num_examples` are real.
    rng: a key.
    round: [] i32.
    batch_size: B.
    epochs: passes over the client's examples.

  Returns:
    Batches with S = epochs * (N // B) steps.

  Raises:
    ValueError: no client can fill a batch (N < B), or `batch_size` or `epochs`
      is below 1.
  """
  argument_checks.count('batch_size', batch_size)
  argument_checks.count('epochs', epochs)
  rows = len(jax.tree.leaves(arrays.images)[0])
  most = rows // batch_size
  if not most:
    raise ValueError(f'a batch of {batch_size} needs as many examples; the '
                     f'largest client has {rows}')

  def shuffle(key):
    # Explicitly of 32 bits: with jax_enable_x64 the default has 64, among which
    # the mark of padding would be a small number.
    bits = jax.random.bits(key, (rows,), jnp.uint32)
    padding = jnp.arange(rows) >= arrays.num_examples
    # Stable sorts by random bits, padding behind: a permutation of the real.
    order = jnp.argsort(jnp.where(padding, jnp.uint32(2**32 - 1), bits),
                        stable=True)
    return order.astype(jnp.int32)

  orders = jax.vmap(shuffle)(jax.random.split(rng, epochs))
  per_epoch = jnp.maximum(arrays.num_examples // batch_size, 1)
  step = jnp.arange(epochs * most)
  epoch = jnp.minimum(step // per_epoch, epochs - 1)
  start = (step % per_epoch) * batch_size
  column = start[:, None] + jnp.arange(batch_size)[None]
  return Batches(
      images=arrays.images, index=orders[epoch[:, None], column],
      mask=step < epochs * (arrays.num_examples // batch_size),
      round=jnp.asarray(round, jnp.int32))


def local_update(client: ClientState, batches: Batches, rng: Array, *,
                 learner: Learner, distance: Distance = trees.conv_distance
                 ) -> tuple[ClientState, Metrics]:
  """Trains one client on its own images for one round.

  Args:
    client: the client as its last download left it.
    batches: its images and the order in which to visit them.
    rng: a key; step s uses `fold_in(rng, s)`.
    learner: the SSL method.
    distance: measures the encoder's drift over this training; it is what DAPU
      and FedEMA read. `trees.squared_distance` is the paper's.

  Returns:
    The trained client, and its metrics: the means over its steps of what the
    learner reports, 'divergence' [], 'steps' [], and 'divergence/<layer>' [].
    The learner may report nothing, and arrays of any shape.
  """
  start = client.online.encoder.params
  state = learner.init(client, batches.round)

  @jax.jit  # so that it is traced once for both of its uses
  def train(state, number, index):
    return learner.step(state, trees.take(batches.images, index),
                        jax.random.fold_in(rng, number))

  def skip(*args):
    _, metrics = jax.eval_shape(train, *args)
    return args[0], jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

  def step(state, work):
    number, index, mask = work
    return jax.lax.cond(mask, train, skip, state, number, index)

  numbers = jnp.arange(len(batches.mask))
  state, metrics = jax.lax.scan(
      step, state, (numbers, batches.index, batches.mask))
  steps = batches.mask.sum(dtype=jnp.int32)
  metrics = {name: _mean(x, steps) for name, x in metrics.items()}

  client = learner.final(client, state)
  end = client.online.encoder.params
  client = client._replace(
      divergence=distance(start, end).astype(client.divergence.dtype),
      last_round=batches.round.astype(client.last_round.dtype),
      uploaded=jnp.array(True))
  metrics |= {f'divergence/{layer}': x
              for layer, x in trees.conv_distances(start, end).items()}
  return client, metrics | {'divergence': client.divergence, 'steps': steps}


def _mean(x: Array, steps: Array) -> Array:
  """The mean over those of the steps [S, ...] that were done."""
  if not jnp.issubdtype(x.dtype, jnp.inexact):  # a count, or whether
    x = x.astype(jnp.float32)
  return x.sum(0) / jnp.maximum(steps, 1).astype(x.dtype)
