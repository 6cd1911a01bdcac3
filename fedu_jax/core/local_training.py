"""Local training: one client, one round, any SSL method.

The order of calls: `init_clients` and `client_arrays` once for all clients;
`make_batches` and `local_update` for each client in each round.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from fedu_jax.core import argument_checks
from fedu_jax.core import local_steps
from fedu_jax.core import packing
from fedu_jax.core import trees
from fedu_jax.core.state import (
  Array,
  Batches,
  ClientArrays,
  ClientState,
  Learner,
  Memory,
  Metrics,
  Online,
  PyTree,
)

# (encoder params, encoder params) -> distance []
Distance = Callable[[PyTree, PyTree], Array]
Pack = Callable[[PyTree], PyTree]


def init_clients(online: Online, num_examples: ArrayLike, *,
                 memory: Memory = Memory()) -> ClientState:
  """Makes the stacked states of K clients that have not trained yet.

  Args:
    online: the server's first network. Each client starts from it; its encoder
      is also each client's first target.
    num_examples: [K], the clients' data sizes.
    memory: the memory that one client starts with.

  Returns:
    The clients' states; every leaf has a leading axis [K].

  Raises:
    ValueError: `num_examples` is not of shape [K], or K is 0.
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
  """Copies each client's images to the device, padded to the same number.

  Args:
    images: the images of all clients, [N, H, W, C]; or a tree of such
      arrays, as Labelled is. Of `Lazy` images a process reads only those of the
      clients that its devices hold.
    parts: for each client, the rows of `images` that it owns.
    sharding: the sharding of the stacked arrays; None puts them on the first
      device.
    most: the number to pad to, if it is more than the largest of `parts` has.

  Returns:
    The stacked images, [K, most, H, W, C], and data sizes, [K] i32.

  Raises:
    ValueError: there are no parts, or a part names a row that `images` lacks.
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
                 batch_size: int, epochs: int,
                 full: bool = False) -> Batches:
  """Shuffles one client's examples into the batches of one round.

  Each epoch is a fresh permutation and drops its last, incomplete batch
  (EasyFL's `drop_last=True`), so every batch is full. All clients have S steps,
  as many as the largest client needs. A smaller client does its own steps first
  and skips the others: their `mask` is False.

  Args:
    arrays: the client's images; the first `num_examples` rows are real, the
      others padding.
    rng: a key.
    round: the number of the round, [] i32.
    batch_size: B.
    epochs: passes over the client's examples.
    full: whether the client is known to do all S steps. Then `mask` is None,
      and the compiler knows the number of steps.

  Returns:
    Batches with S = epochs * (N // B) steps.

  Raises:
    ValueError: the images do not fill one batch (N < B), or `batch_size` or
      `epochs` is below 1.
  """
  argument_checks.count('batch_size', batch_size)
  argument_checks.count('epochs', epochs)
  rows = len(jax.tree.leaves(arrays.images)[0])
  most = rows // batch_size
  if not most:
    raise ValueError(f'a batch of {batch_size} needs as many examples; the '
                     f'largest client has {rows}')

  def shuffle(key):
    # uint32 is named because jax_enable_x64 makes uint64 the default. Then the
    # largest uint32, which marks padding, would not be the largest value.
    bits = jax.random.bits(key, (rows,), jnp.uint32)
    padding = jnp.arange(rows) >= arrays.num_examples
    # The sort permutes the real rows and puts the padding behind them. It is
    # stable, so a real row that draws the mark too stays before the padding.
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
      mask=None if full else
      step < epochs * (arrays.num_examples // batch_size),
      round=jnp.asarray(round, jnp.int32))


def local_update(client: ClientState, batches: Batches, rng: Array, *,
                 learner: Learner, distance: Distance = trees.conv_distance,
                 masked: bool = False, packed: bool = False
                 ) -> tuple[ClientState, Metrics]:
  """Trains one client on its own images for one round.

  Args:
    client: the client after its download.
    batches: the client's images and their order.
    rng: a key; step s uses `fold_in(rng, s)`.
    learner: the SSL method.
    distance: the measure of the encoder's drift during this training. DAPU and
      FedEMA read the result. The default is the released code's, and
      `trees.squared_distance` the paper's.
    masked: how a step is skipped, see `local_steps.run`.
    packed: whether the small arrays of the method's state are joined from step
      to step, see `packing`.

  Returns:
    The trained client and its metrics: the learner's own, each averaged over
    the steps that were done, of any shape; 'divergence' [] and
    'divergence/<layer>' [], the drift; and 'steps' [], the number of steps.
  """
  state = learner.init(client, batches.round)
  step, pack, unpack = stepper(state, batches.images, rng, learner=learner,
                               packed=packed)
  state, metrics, steps = local_steps.run(
      step, pack(state), batches.index, batches.mask, masked=masked)
  return end(client, unpack(state), metrics, steps, batches.round,
             learner=learner, distance=distance)


def stepper(state: PyTree, images: PyTree, rng: Array, *, learner: Learner,
            packed: bool) -> tuple[local_steps.Step, Pack, Pack]:
  """Makes the step of a client's local training.

  Args:
    state: the method's state, or its shapes.
    images: the images that the rows of a batch name.
    rng: as for `local_update`, and so are the others.
    learner: the SSL method.
    packed: whether small arrays are joined.

  Returns:
    The step; the function that makes its state of the method's; the inverse.
  """
  pack, unpack = packing.packing(state, packing.SMALL if packed else None)

  @jax.jit  # several uses then share one trace
  def step(state, number, index):
    state, metrics = learner.step(
        unpack(state), trees.take(images, index),
        jax.random.fold_in(rng, number))
    return pack(state), metrics
  return step, pack, unpack


def end(client: ClientState, state: PyTree, metrics: Metrics, steps: Array,
        round: Array, *, learner: Learner,
        distance: Distance = trees.conv_distance
        ) -> tuple[ClientState, Metrics]:
  """Ends a client's local training, after its last step.

  Args:
    client: the client after its download.
    state: the method's state after the last step.
    metrics: the learner's, averaged over the steps.
    steps: the number of steps that were done, [] i32.
    round: the number of the round, [] i32.
    learner: the SSL method.
    distance: the measure of the encoder's drift.

  Returns:
    The result of `local_update`.
  """
  start = client.online.encoder.params
  client = learner.final(client, state)
  trained = client.online.encoder.params
  client = client._replace(
      divergence=distance(start, trained).astype(client.divergence.dtype),
      last_round=round.astype(client.last_round.dtype),
      uploaded=jnp.array(True))
  metrics |= {f'divergence/{layer}': x
              for layer, x in trees.conv_distances(start, trained).items()}
  return client, metrics | {'divergence': client.divergence, 'steps': steps}
