"""The scores of one encoder on one data set, by the config's settings."""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core import pixels
from fedu_jax.core import precision
from fedu_jax.core.state import Online, Variables
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.evaluation import geometry
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import score_tables
from fedu_jax.learners import augment
from fedu_jax.models import networks


class Settings(NamedTuple):
  """The settings of scores: fields of config.evaluation, by their names.

  Attributes:
    knn_neighbours: the number of nearest training images that vote.
    knn_temperature: the temperature of the votes, see `probes.knn_accuracy`.
    probe_epochs: passes of the linear probe over the training images.
    probe_batch_size: images in a step of the probe.
    probe_learning_rate: the learning rate of the probe (Adam).
    probe_standardise: whether the probe gets standardised features.
    labels_per_class: labelled images of each class for a second probe; 0 for no
      second probe.
    few_draws: the number of draws of these labelled images.
    semi_hidden: the hidden units of the semi-supervised head.
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
  """Scores encoders. SSL training sees no labels; scores use them."""
  nets: networks.Nets
  train_images: Images  # [N, H, W, C] u8 or u16
  train_labels: np.ndarray  # [N] i32; [0] if the data has none
  test_images: Images  # [Q, H, W, C]; [0, H, W, C] if there are none
  test_labels: np.ndarray  # [Q] i32
  settings: Settings
  seed: int
  view: dict[str, Any] = {}  # config.view
  data_dir: str = ''  # the folder of other data sets
  classifies: bool = False  # the predictor's output is a logit for each class

  @property
  def labelled(self) -> bool:
    """Whether training and test images have labels. Most scores need them."""
    return len(self.train_labels) > 0 and len(self.test_labels) > 0

  @property
  def num_classes(self) -> int:
    return int(max(self.train_labels.max(), self.test_labels.max())) + 1

  def embed(self, encoder: Variables, images: Images, *,
            below_projector: bool = True) -> jax.Array:
    """Returns features [N, D], or the projector's output."""
    apply = (probes.features if below_projector
             else probes.projections)
    return probes.embed(apply, self.nets.encoder, encoder, images)

  def raw(self) -> 'Scorer':
    """Returns a scorer whose probes do not standardise features."""
    return self._replace(
        settings=self.settings._replace(probe_standardise=False))

  def _both(self, encoder: Variables, below_projector: bool):
    return [self.embed(encoder, images, below_projector=below_projector)
            for images in (self.train_images, self.test_images)]

  def knn(self, encoder: Variables, *, below_projector: bool = False) -> float:
    """Returns the kNN accuracy, by default on the projector's output."""
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
    """The probe on all training examples, in the order of `mixed`."""
    order = mixed(self.train_labels, self.seed)
    return self._probe(train[order], jnp.asarray(self.train_labels[order]),
                       test, rng)

  def _features(self, encoder: Variables):
    """The features of training and test images, for probes."""
    train, test = self._both(encoder, True)
    if self.settings.probe_standardise:
      train, test = probes.standardise(train, test)
    return train, test

  def linear(self, encoder: Variables) -> float:
    """Returns the accuracy of the linear probe, below the projector."""
    train, test = self._features(encoder)
    return self._probe_of_all(train, test, jax.random.key(self.seed))

  def all(self, online: Online) -> dict[str, float]:
    """Returns all scores of the settings, by name."""
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

  def alignment(self, encoder: Variables) -> float:
    """Returns the alignment of two views of each training image."""
    images = self.train_images
    draw = jax.jit(augment.make_view(**self.view))

    def views(rng, second):
      drawn = np.concatenate([
          draw(images[i:i + 500], jax.random.fold_in(rng, i), second)
          for i in range(0, len(images), 500)])
      return self.embed(encoder, pixels.from_unit(drawn, images.dtype))
    rngs = jax.random.split(jax.random.key(self.seed))
    return float(geometry.alignment(*map(views, rngs, (False, True))))

  @precision.full
  def classifier(self, online: Online) -> float:
    """Returns the accuracy of a supervised federation's own classifier."""
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

  @precision.full
  def fitted(self, online: Online) -> Online:
    """Gives an untrained encoder BatchNorm statistics of the training images.

    BatchNorm's initial statistics fit no data. Features then hardly vary, and a
    probe learns little. So an untrained encoder is scored with both statistics,
    and the `best` scores count.
    """
    images = self.train_images
    size = min(128, len(images))
    order = np.random.RandomState(self.seed).permutation(len(images))
    return online._replace(encoder=networks.with_statistics_of(
        (pixels.to_unit(images[order[i:i + size]])
         for i in range(0, len(images) - size + 1, size)),
        self.nets.encoder, online.encoder))


def mixed(labels: np.ndarray, seed: int) -> np.ndarray:
  """Returns the order of examples for batches and for the labelled share.

  The released protocols use the order of the file, and their files are mixed. A
  file that is sorted by class would give batches of one class, and so would its
  first examples. Such a file is shuffled; any other keeps its order.

  Args:
    labels: [N] i32, in the order of the file.
    seed: the seed of the shuffle.

  Returns:
    Rows of `labels`, [N].
  """
  count = len(labels)
  share = np.unique(labels, return_counts=True)[1] / count
  # The number of class changes between neighbours, and its expectation in a
  # random order.
  changes = np.count_nonzero(np.diff(labels))
  expected = (count - 1) * (1 - np.sum(share**2))
  if changes >= expected / 2:
    return np.arange(count)
  return np.random.RandomState(seed).permutation(count)


def best(found: Sequence[dict[str, float]]) -> dict[str, float]:
  """Returns the highest value of each accuracy; for other scores, the first.

  An accuracy of NaN is below all others.
  """
  return {name: value if name in score_tables.PLAIN else max(
      (own[name] for own in found),
      key=lambda x: -math.inf if math.isnan(x) else x)
          for name, value in found[0].items()}
