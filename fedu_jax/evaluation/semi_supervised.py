"""Semi-supervised scores: few labels train a head, or the encoder too."""

import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedu_jax.core import pixels
from fedu_jax.core import precision
from fedu_jax.core.state import Array, PyTree, Variables
from fedu_jax.data import dataset
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import program_memory
from fedu_jax.models import networks
from fedu_jax.models.layers import MLP


def labelled_rows(labels: np.ndarray, ratio: float, *,
                  balanced: bool = False) -> np.ndarray:
  """Chooses the training examples that have labels.

  Args:
    labels: [N] i32, in the order of the training file.
    ratio: the share of examples with labels, in 0..1.
    balanced: whether to take the first examples of each class, evenly; if not,
      the first examples of the file, as in the released code.

  Returns:
    Rows of `labels`, ascending.

  Raises:
    ValueError: the ratio leaves no example, or is above 1.
  """
  count = round(ratio * len(labels))
  if not 0 < count <= len(labels):
    raise ValueError(f'{ratio:g} of {len(labels)} examples is {count}')
  if not balanced:
    return np.arange(count)
  return np.sort(np.lexsort((labels, dataset.rank_in_group(labels)))[:count])


@precision.full
def semi_supervised(
    module: nn.Module, encoder: Variables, images: np.ndarray,
    labels: np.ndarray, test_images: Images, test_labels: np.ndarray,
    rng: Array, *, num_classes: int, fine_tune: bool = False, layers: int = 2,
    hidden: int = 4096, epochs: int = 100, batch_size: int = 128,
    learning_rate: float = 1e-3) -> float:
  """Trains a classifier on few labels and returns its test accuracy.

  Without `fine_tune` it is the released code's protocol (EasyFL fedssl,
  semi_supervised_evaluation.py). Adam trains the head alone. BatchNorm, the
  encoder's too, is in training mode in the first epoch, and in evaluation mode
  after it. The score is the best test accuracy of all epochs.

  With `fine_tune` all parameters are trained, and BatchNorm stays in training
  mode. The score is that of the last epoch, because a choice of the epoch by
  test accuracy would use the test labels.

  Args:
    module: the encoder.
    encoder: the encoder's variables.
    images: the images with labels, [N, H, W, C] u8 or u16.
    labels: [N] i32.
    test_images: [Q, H, W, C], of the same dtype.
    test_labels: [Q] i32.
    rng: a key for the head's weights and the order of examples.
    num_classes: C.
    fine_tune: whether the encoder is trained too.
    layers: the layers of the head: 2, with BatchNorm between, or 1.
    hidden: the hidden units of the head.
    epochs: passes over the labelled images.
    batch_size: examples in a batch. In training the last batch of an epoch may
      be smaller. The test accuracy is a mean over batches.
    learning_rate: the constant learning rate of Adam.

  Returns:
    The accuracy.
  """
  head = MLP(hidden, num_classes, layers=layers)
  rng_head, rng_order = jax.random.split(rng)
  size = min(batch_size, len(images))
  embed = functools.partial(probes.embed, probes.features, module)
  features = embed(encoder, images[:2])
  top = networks.variables(head.init(rng_head, features, train=False))
  params = (encoder.params, top.params) if fine_tune else top.params
  state = (encoder, top, optax.adam(learning_rate).init(params))
  train = functools.partial(
      program_memory.run, _epoch, 'a semi-supervised head', module=module,
      head=head, size=size, learning_rate=learning_rate)
  inputs, targets = jnp.asarray(images), jnp.asarray(labels)

  def order(e):
    return jax.random.permutation(jax.random.fold_in(rng_order, e), len(images))

  def score(state, test):
    logits: Any = head.apply(state[1]._asdict(), test, train=False)
    return float(probes.accuracy(
        logits, jnp.asarray(test_labels), batch_size))

  state = train(state, inputs, targets, order(0),
                mode='tune' if fine_tune else 'warm')
  if fine_tune:
    for e in range(1, epochs):
      state = train(state, inputs, targets, order(e), mode='tune')
    return score(state, embed(state[0], test_images))
  # The encoder no longer changes, so its features are computed once.
  known = embed(state[0], images)
  test = embed(state[0], test_images)
  best = score(state, test)
  for e in range(1, epochs):
    state = train(state, known, targets, order(e), mode='head')
    best = max(best, score(state, test))
  return best


@functools.partial(jax.jit, static_argnames=(
    'module', 'head', 'learning_rate', 'size', 'mode'))
def _epoch(state: PyTree, inputs: Array, labels: Array, order: Array, *,
           module: Any, head: Any, learning_rate: float, size: int, mode: str
           ) -> PyTree:
  """Trains for one epoch.

  `mode` 'tune' trains all parameters, on images. 'warm' trains the head, on
  images, and updates BatchNorm's statistics. 'head' trains the head, on
  features, with fixed statistics.
  """
  tx = optax.adam(learning_rate)

  def logits(encoder, top, x):
    if mode == 'head':
      return head.apply(top._asdict(), x, train=False), (encoder, top)
    z, changed = module.apply(
        encoder._asdict(), pixels.to_unit(x), train=True,
        method=networks.features_method(module), mutable=['batch_stats'])
    # The projector does not run, so its statistics stay.
    stats = {**encoder.batch_stats, **changed.get('batch_stats', {})}
    encoder = encoder._replace(batch_stats=stats)
    y, top = networks.forward(head, top, z)
    return y, (encoder, top)

  def step(state, rows):
    encoder, top, opt_state = state
    params = (encoder.params, top.params) if mode == 'tune' else top.params

    def loss(params):
      moved = encoder, top._replace(params=params)
      if mode == 'tune':
        moved = (encoder._replace(params=params[0]),
                 top._replace(params=params[1]))
      y, after = logits(*moved, inputs[rows])
      return optax.softmax_cross_entropy_with_integer_labels(
          y, labels[rows]).mean(), after

    grads, (encoder, top) = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    if mode == 'tune':
      return (encoder._replace(params=params[0]),
              top._replace(params=params[1]), opt_state), None
    return (encoder, top._replace(params=params), opt_state), None

  steps = len(order) // size
  state, _ = jax.lax.scan(
      step, state, order[:steps * size].reshape(steps, size))
  if len(order) % size:
    state, _ = step(state, order[steps * size:])
  return state
