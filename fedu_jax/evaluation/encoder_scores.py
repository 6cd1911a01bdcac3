"""The accuracies of one encoder on one data set, as the config asks for them.
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core.state import Online, Variables
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import score_tables
from fedu_jax.models import networks


class Settings(NamedTuple):
  """How encoders are scored: fields of config.evaluation, by their names.

  Attributes:
    knn_neighbours: how many of the nearest training images vote.
    knn_temperature: of the votes, see `probes.knn_accuracy`.
    probe_epochs: passes of the linear probe over the training images.
    probe_batch_size: images of a step of the probe.
    probe_learning_rate: Adam's, of the probe.
    probe_standardise: whether the probe takes standardised features.
    labels_per_class: labelled images a class of a second probe; 0: no such one.
    few_draws: how often these labelled images are drawn.
    semi_hidden: units in the middle of the semi-supervised head.
    semi_epochs: passes of that head over the labelled images.
  """
  knn_neighbours: int
  knn_temperature: float
  probe_epochs: int
  probe_batch_size: int
  probe_learning_rate: float
  probe_standardise: bool
  labels_per_class: int
  few_draws: int
  semi_hidden: int
  semi_epochs: int


class Scorer(NamedTuple):
  """Scores encoders; labels come in here and nowhere in training."""
  nets: networks.Nets
  train_images: np.ndarray  # [N, H, W, 3] u8
  train_labels: np.ndarray  # [N] i32; [0], where the data has none
  test_images: np.ndarray  # [0, H, W, 3], where the data has none
  test_labels: np.ndarray
  settings: Settings
  seed: int
  view: dict[str, Any] = {}  # config.view
  data_dir: str = ''  # where other data sets lie
  classifies: bool = False  # the predictor's output is one logit a class

  @property
  def labelled(self) -> bool:
    """Whether training and test images have labels, which most scores need."""
    return len(self.train_labels) > 0 and len(self.test_labels) > 0

  @property
  def num_classes(self) -> int:
    return int(max(self.train_labels.max(), self.test_labels.max())) + 1

  def embed(self, encoder: Variables, images: np.ndarray, *,
            below_projector: bool = True) -> jax.Array:
    """Features [N, D], or what the projector makes of them."""
    apply = (probes.features if below_projector
             else probes.projections)
    return probes.embed(apply, self.nets.encoder, encoder, images)

  def raw(self) -> 'Scorer':
    """The same, but its probes take features as they are."""
    return self._replace(
        settings=self.settings._replace(probe_standardise=False))

  def _both(self, encoder: Variables, below_projector: bool):
    return [self.embed(encoder, images, below_projector=below_projector)
            for images in (self.train_images, self.test_images)]

  def knn(self, encoder: Variables, *, below_projector: bool = False) -> float:
    """kNN, by default the released code's monitor on the projector's output."""
    bank, queries = self._both(encoder, below_projector)
    return float(probes.knn_accuracy(
        bank, self.train_labels, queries, self.test_labels,
        k=self.settings.knn_neighbours,
        temperature=self.settings.knn_temperature))

  def _probe(self, train, labels, test, rng) -> float:
    return float(probes.linear_probe(
        train, labels, test, jnp.asarray(self.test_labels), rng,
        num_classes=self.num_classes, epochs=self.settings.probe_epochs,
        batch_size=self.settings.probe_batch_size,
        learning_rate=self.settings.probe_learning_rate))

  def _probe_of_all(self, train, test, rng) -> float:
    """The probe on all training examples, which it takes in their order."""
    order = mixed(self.train_labels, self.seed)
    return self._probe(train[order], jnp.asarray(self.train_labels[order]),
                       test, rng)

  def _features(self, encoder: Variables):
    """Of training and test images, as the probes want them."""
    train, test = self._both(encoder, True)
    if self.settings.probe_standardise:
      train, test = probes.standardise(train, test)
    return train, test

  def linear(self, encoder: Variables) -> float:
    """The linear probe on features below the projector."""
    train, test = self._features(encoder)
    return self._probe_of_all(train, test, jax.random.key(self.seed))

  def all(self, online: Online) -> dict[str, float]:
    """kNN, the linear probe and, if asked for, the probe on few labels."""
    train, test = self._features(online.encoder)
    rng = jax.random.key(self.seed)
    scores = {'linear': self._probe_of_all(train, test, rng)}
    if self.settings.labels_per_class:
      labels = jnp.asarray(self.train_labels)
      rows = self._few(self.num_classes)
      few = [self._probe(train[x], labels[x], test, key)
             for x, key in zip(rows, jax.random.split(rng, len(rows)))]
      scores[f'linear, {self.settings.labels_per_class} labels a class'] = (
          float(np.mean(few)))
    if self.classifies:
      scores['classifier'] = self.classifier(online)
    return scores | {'knn': self.knn(online.encoder)}

  def classifier(self, online: Online) -> float:
    """The accuracy of a supervised federation's own classifier."""
    z = self.embed(online.encoder, self.test_images, below_projector=False)
    logits: Any = self.nets.predictor.apply(online.predictor._asdict(), z,
                                       train=False)
    labels = jnp.asarray(self.test_labels)
    return float(probes.accuracy(logits, labels, len(labels)))

  def _few(self, classes: int) -> np.ndarray:
    """Draws the few labelled examples, several times: [draws, examples]."""
    draw = np.random.RandomState(self.seed)
    groups = [np.flatnonzero(self.train_labels == c)
              for c in range(classes)]
    return np.stack([draw.permutation(np.concatenate([
        draw.choice(group, min(len(group), self.settings.labels_per_class),
                    replace=False) for group in groups]))
                     for _ in range(self.settings.few_draws)])

  def fitted(self, online: Online) -> Online:
    """Gives an untrained encoder the statistics of the training images.

    As drawn, BatchNorm's statistics fit no data and features hardly vary, which
    a probe suffers from: it is scored both ways, and `best` of them counts.
    """
    images = self.train_images
    size = min(128, len(images))
    order = np.random.RandomState(self.seed).permutation(len(images))
    return online._replace(encoder=networks.with_statistics_of(
        (images[order[i:i + size]].astype(np.float32) / 255
         for i in range(0, len(images) - size + 1, size)),
        self.nets.encoder, online.encoder))


def mixed(labels: np.ndarray, seed: int) -> np.ndarray:
  """Chooses the order of examples in which a protocol takes batches or parts.

  The released protocols take them in the order of the file, and their files
  are in no order. Of a file that holds one class after the other, every batch
  would be of one class, and the first share of the file too: such examples are
  shuffled, the others stay in their order.

  Args:
    labels: [N] i32, in the order of the file.
    seed: of the shuffling.

  Returns:
    [N], rows of `labels`.
  """
  count = len(labels)
  share = np.unique(labels, return_counts=True)[1] / count
  # How often the class changes from one example to the next, and how often it
  # would if they were in no order.
  changes = np.count_nonzero(np.diff(labels))
  expected = (count - 1) * (1 - np.sum(share**2))
  if changes >= expected / 2:
    return np.arange(count)
  return np.random.RandomState(seed).permutation(count)


def best(found: Sequence[dict[str, float]]) -> dict[str, float]:
  """Each accuracy's highest; of scores that are none, the first.

  An accuracy that is NaN counts for less than any other.
  """
  return {name: value if name in score_tables.PLAIN else max(
      (own[name] for own in found),
      key=lambda x: -math.inf if math.isnan(x) else x)
          for name, value in found[0].items()}
