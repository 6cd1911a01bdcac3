"""What a frozen encoder is worth: kNN and a linear probe on its features."""

from collections.abc import Callable
import functools
from typing import Any

from flax import errors
from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np
import optax

from fedu_jax.core import argument_checks
from fedu_jax.core.state import Array, Variables
from fedu_jax.learners.losses import unit
from fedu_jax.models import networks
from fedu_jax.runtime import host_memory


@functools.partial(jax.jit, static_argnames=('apply', 'module', 'batch_size'))
def _embed(images, variables, *, apply, module, batch_size):
  return jax.lax.map(
      lambda batch: apply(module, variables, batch.astype(jnp.float32) / 255),
      images.reshape(-1, batch_size, *images.shape[1:]))


def features(module: nn.Module, variables: Variables, images: Array) -> Array:
  """What lies below the projector: [B, H, W, C] f32 -> [B, D]."""
  z: Any = module.apply(variables._asdict(), images, train=False,
                        method=networks.features_method(module))
  return z


def projections(module: nn.Module, variables: Variables,
                images: Array) -> Array:
  """What the projector puts out: [B, H, W, C] f32 -> [B, D]."""
  z: Any = module.apply(variables._asdict(), images, train=False)
  return z


def embed(apply: Callable[..., Array], module: nn.Module, variables: Variables,
          images: np.ndarray, *, batch_size: int = 500) -> Array:
  """Embeds images batch by batch, without augmentation.

  Args:
    apply: `features`, `projections`, or another (module, variables, images
      [B, H, W, C] f32 in 0..1) -> [B, D]; compiled once for each module.
    module: the encoder.
    variables: the encoder's.
    images: [N, H, W, C] u8.
    batch_size: images per step; changes nothing but memory.

  Returns:
    [N, D] f32.

  Raises:
    ValueError: images are none of that kind, or the module cannot take them.
  """
  argument_checks.pixels(images)
  argument_checks.count('batch_size', batch_size)
  count = len(images)
  if not count:
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    z = jax.eval_shape(lambda v, x: apply(module, v, x), variables, one)
    return jnp.zeros((0, *z.shape[1:]), z.dtype)
  if images.nbytes > 2**28:  # a copy with padding, and one for the device
    host_memory.refuse(2 * images.nbytes, f'to embed {count} images',
                       'what is trained stays; score fewer or smaller images')
  batch_size = min(batch_size, count)
  padded = -(-count // batch_size) * batch_size
  images = np.concatenate([images, np.zeros(
      (padded - count, *images.shape[1:]), np.uint8)])
  try:
    out = _embed(jnp.asarray(images), variables, apply=apply, module=module,
                 batch_size=batch_size)
  except errors.ScopeParamShapeError as error:
    raise ValueError(f'the module cannot take images {images.shape}: {error}'
                     ) from error
  return out.reshape(padded, -1)[:count]


@functools.partial(jax.jit, static_argnames=('k', 'temperature', 'num_classes'))
def _knn(bank, bank_labels, queries, query_labels, *, k, temperature,
         num_classes):
  sound = _sound(bank, queries)
  bank = unit(bank)

  def hit(query):
    similarity, nearest = jax.lax.top_k(unit(query) @ bank.T, k)
    weight = jnp.exp(similarity / temperature)
    votes = jnp.zeros(num_classes).at[bank_labels[nearest]].add(weight)
    return jnp.argmax(votes)

  guesses = jax.lax.map(hit, queries, batch_size=256)
  return jnp.where(sound, jnp.mean(guesses == query_labels), jnp.nan)


def knn_accuracy(bank: ArrayLike, bank_labels: ArrayLike, queries: ArrayLike,
                 query_labels: ArrayLike, *, k: int = 200,
                 temperature: float = 0.1) -> Array:
  """Weighted k-nearest-neighbour accuracy by cosine similarity, [] f32.

  It is NaN where embeddings are not finite: no vote could be counted.

  Each of the k nearest votes with exp(similarity / temperature) (Wu et al.
  2018; EasyFL fedssl, knn_monitor.py, which reads the projector's output).

  Args:
    bank: [N, D] embeddings to look up.
    bank_labels: [N] i32.
    queries: [Q, D].
    query_labels: [Q] i32.
    k: neighbours; all of the bank if it is smaller.
    temperature: of the votes.

  Raises:
    ValueError: shapes, labels, k or temperature are none that have a score.
  """
  argument_checks.examples(bank, bank_labels, name='bank')
  argument_checks.examples(queries, query_labels, name='query',
                           dims=np.shape(bank)[1])
  argument_checks.count('k', k)
  if not temperature > 0:
    raise ValueError(f'temperature is {temperature}; it must be above 0')
  classes = int(max(np.max(bank_labels), np.max(query_labels))) + 1
  bank = jnp.asarray(bank)
  return _knn(bank, jnp.asarray(bank_labels), jnp.asarray(queries),
              jnp.asarray(query_labels), k=min(k, len(bank)),
              temperature=temperature, num_classes=classes)


def standardise(train: Array, test: Array) -> tuple[Array, Array]:
  """Gives each feature mean 0 and deviation 1 over `train`, [N, D] x2.

  A feature that does not vary over `train` becomes 0 in both halves: a probe
  learns nothing of it, and what it has in `test` would otherwise be divided by
  almost nothing. Such is a deviation that rounding explains, or one below
  1e-4 of the widest feature's.
  """
  mean, deviation = train.mean(0, keepdims=True), train.std(0, keepdims=True)
  still = deviation <= jnp.maximum(1e-6 * jnp.abs(mean),
                                   1e-4 * deviation.max())

  def scaled(x):
    return jnp.where(still, 0 * x, (x - mean) / jnp.where(still, 1, deviation))
  return scaled(train), scaled(test)


def _sound(*features: Array) -> Array:
  """Whether features [N, D], and the sum of their squares, are finite: []."""
  return jnp.isfinite(jnp.stack(
      [jnp.sum(jnp.square(x)) for x in features])).all()


def alignment(z1: Array, z2: Array) -> Array:
  """The mean squared distance of two views' unit features, [] f32.

  Args:
    z1: [N, D], features of one view of each image.
    z2: [N, D], of another (Wang & Isola 2020, alpha = 2).
  """
  distance = jnp.mean(jnp.sum(jnp.square(unit(z1) - unit(z2)), axis=-1))
  return jnp.where(_sound(z1, z2), distance, jnp.nan)


def uniformity(z: Array, *, temperature: float = 2.0) -> Array:
  """The log of the mean Gaussian potential over pairs of images, [] f32.

  Args:
    z: [N, D], features of different images (Wang & Isola 2020).
    temperature: t in exp(-t distance^2).
  """
  sound = _sound(z)
  z = unit(z)

  def potential(row):
    distance = 2 - 2 * z @ row
    return jnp.sum(jnp.exp(-temperature * distance)) - 1  # not with itself
  total = jnp.sum(jax.lax.map(potential, z, batch_size=256))
  return jnp.where(sound, jnp.log(total / (len(z) * (len(z) - 1))), jnp.nan)


def _batched(x, batch_size):
  """Pads to full batches: [N, ...] -> ([S, B, ...], the mask [S, B])."""
  count = len(x)
  steps = -(-count // batch_size)
  pad = [(0, steps * batch_size - count)] + [(0, 0)] * (x.ndim - 1)
  mask = jnp.arange(steps * batch_size) < count
  return (jnp.pad(x, pad).reshape(steps, batch_size, *x.shape[1:]),
          mask.reshape(steps, batch_size))


def accuracy(logits: Array, labels: Array, batch_size: int) -> Array:
  """The mean over batches of each batch's accuracy, [] f32, as released.

  With an incomplete last batch it is not exactly the share of hits. It is NaN
  where a logit is not finite: the largest of such logits is no answer.

  Args:
    logits: [N, C].
    labels: [N] i32.
    batch_size: or fewer if there are fewer examples.
  """
  hits, mask = _batched(jnp.argmax(logits, -1) == labels,
                        min(batch_size, len(labels)))
  return jnp.where(jnp.isfinite(logits).all(), jnp.mean(
      (hits & mask).sum(1) / mask.sum(1)), jnp.nan)


def linear_probe(train: Array, train_labels: Array, test: Array,
                 test_labels: Array, rng: Array, *, num_classes: int,
                 epochs: int = 200, batch_size: int = 2048,
                 learning_rate: float = 3e-3) -> Array:
  """Accuracy of a linear layer trained on frozen features, [] f32.

  Adam with a constant rate and no decay, batches in the order of the data, and
  as score the mean over test batches of each batch's accuracy after the last
  epoch (EasyFL fedssl, linear_evaluation.py). It is NaN where features or what
  the layer makes of them are not finite.

  Args:
    train: [N, D] features.
    train_labels: [N] i32.
    test: [Q, D].
    test_labels: [Q] i32.
    rng: a key, for the layer's initial weights (PyTorch's default).
    num_classes: C.
    epochs: passes over `train`.
    batch_size: the reference's 2048, or fewer if there are fewer examples.
    learning_rate: Adam's.

  Raises:
    ValueError: shapes, labels or numbers are none that a layer can be trained
      on.
  """
  argument_checks.examples(train, train_labels, name='training',
                           num_classes=num_classes)
  argument_checks.examples(test, test_labels, name='test',
                           dims=np.shape(train)[1], num_classes=num_classes)
  for name, value in (('num_classes', num_classes), ('epochs', epochs),
                      ('batch_size', batch_size)):
    argument_checks.count(name, value)
  return _linear_probe(train, train_labels, test, test_labels, rng,
                       num_classes=num_classes, epochs=epochs,
                       batch_size=batch_size, learning_rate=learning_rate)


@functools.partial(jax.jit, static_argnames=(
    'num_classes', 'epochs', 'batch_size', 'learning_rate'))
def _linear_probe(train, train_labels, test, test_labels, rng, *, num_classes,
                  epochs, batch_size, learning_rate):
  dims = train.shape[-1]
  bound = dims ** -0.5
  rng_kernel, rng_bias = jax.random.split(rng)
  draw = functools.partial(
      jax.random.uniform, dtype=jnp.result_type(train, jnp.float32),
      minval=-bound, maxval=bound)
  params = {
      'kernel': draw(rng_kernel, (dims, num_classes)),
      'bias': draw(rng_bias, (1, num_classes))}
  tx = optax.adam(learning_rate)

  def logits(params, x):
    return x @ params['kernel'] + params['bias']

  def loss(params, x, y, mask):
    each = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
    return jnp.sum(each * mask) / mask.sum()

  def step(carry, batch):
    params, opt_state = carry
    grads = jax.grad(loss)(params, *batch)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), None

  x, mask = _batched(train, min(batch_size, len(train)))
  y, _ = _batched(train_labels, min(batch_size, len(train)))

  def epoch(carry, _):
    return jax.lax.scan(step, carry, (x, y, mask))[0], None

  (params, _), _ = jax.lax.scan(
      epoch, (params, tx.init(params)), length=epochs)
  found = accuracy(logits(params, test), test_labels, batch_size)
  # Adam's moments hold squares: where they overflow, nothing is learnt.
  return jnp.where(_sound(train, test), found, jnp.nan)
