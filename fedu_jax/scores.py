"""The accuracies of one encoder on one data set, as the config asks for them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fedu_jax import evaluation
from fedu_jax import networks
from fedu_jax.state import Online, Variables


class Scorer(NamedTuple):
  """Scores encoders; labels come in here and nowhere in training."""
  nets: networks.Nets
  train_images: np.ndarray  # [N, H, W, 3] u8
  train_labels: np.ndarray  # [N] i32
  test_images: np.ndarray
  test_labels: np.ndarray
  settings: ml_collections.ConfigDict  # config.evaluation
  seed: int

  def _embed(self, encoder: Variables, below_projector: bool):
    apply = _below if below_projector else _above
    return [evaluation.embed(apply, self.nets.encoder, encoder, images)
            for images in (self.train_images, self.test_images)]

  def knn(self, encoder: Variables) -> float:
    """The kNN monitor, on the projector's output."""
    bank, queries = self._embed(encoder, below_projector=False)
    return float(evaluation.knn_accuracy(
        bank, self.train_labels, queries, self.test_labels,
        k=self.settings.knn_neighbours,
        temperature=self.settings.knn_temperature))

  def all(self, online: Online) -> dict[str, float]:
    """kNN, the linear probe and, if asked for, the probe on few labels."""
    train, test = self._embed(online.encoder, below_projector=True)
    if self.settings.probe_standardise:
      train, test = evaluation.standardise(train, test)
    labels = jnp.asarray(self.train_labels)
    test_labels = jnp.asarray(self.test_labels)
    classes = int(max(labels.max(), test_labels.max())) + 1
    rng = jax.random.key(self.seed)

    def probe(rows, rng):
      return evaluation.linear_probe(
          train[rows], labels[rows], test, test_labels, rng,
          num_classes=classes, epochs=self.settings.probe_epochs,
          batch_size=self.settings.probe_batch_size,
          learning_rate=self.settings.probe_learning_rate)

    scores = {'linear': float(probe(slice(None), rng))}
    if self.settings.labels_per_class:
      rows = self._few(classes)
      few = [float(probe(x, key))
             for x, key in zip(rows, jax.random.split(rng, len(rows)))]
      scores[f'linear, {self.settings.labels_per_class} labels a class'] = (
          float(np.mean(few)))
    return scores | {'knn': self.knn(online.encoder)}

  def _few(self, classes: int) -> np.ndarray:
    """Draws the few labelled examples, several times: [draws, examples]."""
    draw = np.random.RandomState(self.seed)
    groups = [np.flatnonzero(self.train_labels == c)
              for c in range(classes)]
    return np.stack([draw.permutation(np.concatenate([
        draw.choice(group, min(len(group), self.settings.labels_per_class),
                    replace=False) for group in groups]))
                     for _ in range(self.settings.few_draws)])

  def untrained(self, online: Online) -> dict[str, float]:
    """Scores the initial weights, as strongly as they can be made to.

    As drawn, BatchNorm's statistics fit no data and features hardly vary, which
    a probe suffers from. So the weights are scored as they are and with the
    statistics of the training images, and each score's better one is taken.
    """
    encoder = online.encoder
    images = self.train_images
    order = np.random.RandomState(self.seed).permutation(len(images))
    forward = jax.jit(lambda v, x: networks.forward(
        self.nets.encoder, v, x.astype(jnp.float32) / 255)[1])
    size = min(128, len(images))
    for start in range(0, min(len(images) - size + 1, 64 * size), size):
      encoder = forward(encoder, images[order[start:start + size]])
    drawn, fitted = self.all(online), self.all(online._replace(encoder=encoder))
    return {name: max(drawn[name], fitted[name]) for name in drawn}


def _below(module, variables, images):
  return module.apply(variables._asdict(), images, train=False,
                      method='features')


def _above(module, variables, images):
  return module.apply(variables._asdict(), images, train=False)
