"""kNN and the probe against scikit-learn, PyTorch's protocol and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import fedu_jax
from fedu_jax.data import lazy_arrays
from fedu_jax.evaluation import geometry
from fedu_jax.evaluation import probes
from tests.helpers import small


def blobs(n=300, classes=3, dims=8, spread=2.2, seed=0):
  x, y = datasets.make_blobs(n, dims, centers=classes, cluster_std=spread,
                             center_box=(-2, 2), random_state=seed)
  return x.astype(np.float32), y.astype(np.int32)


def test_knn_with_one_neighbour_is_scikit_learns():
  x, y = blobs()
  theirs = KNeighborsClassifier(1, metric='cosine').fit(x[:200], y[:200])
  want = theirs.score(x[200:], y[200:])
  got = fedu_jax.knn_accuracy(x[:200], y[:200], x[200:], y[200:], k=1)
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert 0.5 < want < 1  # neither chance nor trivial


def test_knn_votes_are_weighted_by_similarity():
  x, y = blobs()
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  right = 0
  for query, label in zip(unit[200:], y[200:]):
    similarity = unit[:200] @ query
    nearest = np.argsort(-similarity)[:20]
    votes = np.zeros(3)
    for i in nearest:
      votes[y[i]] += np.exp(similarity[i] / 0.1)
    right += votes.argmax() == label
  got = fedu_jax.knn_accuracy(x[:200], y[:200], x[200:], y[200:], k=20,
                              temperature=0.1)
  np.testing.assert_allclose(got, right / 100, atol=1e-6)


def test_knn_takes_a_bank_smaller_than_k():
  x, y = blobs()
  a = fedu_jax.knn_accuracy(x[:50], y[:50], x[200:], y[200:], k=200)
  b = fedu_jax.knn_accuracy(x[:50], y[:50], x[200:], y[200:], k=50)
  assert a == b


def test_probe_reaches_what_logistic_regression_does():
  x, y = blobs(600)
  want = LogisticRegression(C=1e4, max_iter=1000).fit(x[:400], y[:400]).score(
      x[400:], y[400:])
  got = fedu_jax.linear_probe(x[:400], y[:400], x[400:], y[400:],
                              jax.random.key(0), num_classes=3, batch_size=64)
  assert abs(got - want) < 0.02 and want < 0.99


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e25])
def test_what_is_not_finite_has_no_score(value):
  """The score is NaN. It is not the share of class 0, the argmax of NaN, and
  not 0, as for unit vectors of an infinite norm. 1e25 squared overflows.
  """
  x, y = blobs(100)
  bad = x.copy()
  bad[3] = value
  for bank, queries in ((bad, x), (x, bad)):
    assert np.isnan(fedu_jax.knn_accuracy(bank, y, queries, y, k=5))
    assert np.isnan(fedu_jax.linear_probe(
        bank, y, queries, y, jax.random.key(0), num_classes=3, epochs=2))
    assert np.isnan(geometry.alignment(bank, queries))
  assert np.isnan(geometry.uniformity(bad))
  logits = np.eye(3, dtype=np.float32)[y]
  assert probes.accuracy(logits, y, 10) == 1
  logits[0, 0] = np.nan if np.isnan(value) else np.inf
  assert np.isnan(probes.accuracy(logits, y, 10))


@pytest.mark.parametrize('train, test', [
    (0, 0.05), (14.62, 14.63), (1e-7 * np.arange(400), 3)])
def test_a_feature_that_does_not_vary_counts_for_nothing(train, test):
  """A dead unit that varies in some test images, a constant that float32 cannot
  hold, and one that hardly varies: divided by almost 0, each would decide the
  probe's answer.
  """
  x, y = blobs(600, spread=1.0)

  def score(x):
    known, asked = probes.standardise(x[:400], x[400:])
    return float(fedu_jax.linear_probe(
        known, y[:400], asked, y[400:], jax.random.key(0), num_classes=3,
        batch_size=64)), float(jnp.abs(asked).max())
  beside = np.empty((600, 1), np.float32)
  beside[:400, 0], beside[400::2, 0], beside[401::2, 0] = train, test, 0
  (want, _), (got, largest) = score(x), score(np.hstack([x, beside]))
  assert abs(got - want) < 0.01 and largest < 5 and want > 0.95


def test_standardised_features_have_mean_0_and_deviation_1():
  """At any scale: features of 1e-8 do not count as constant."""
  x, _ = blobs(300)
  for scale in (1e-8, 1, 1e8):
    known, asked = probes.standardise(scale * x[:200], scale * x[200:])
    np.testing.assert_allclose(known.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(known.std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(
        asked, (x[200:] - x[:200].mean(0)) / x[:200].std(0), atol=1e-5)


def test_probe_scores_the_mean_of_batches():
  """120 test images in batches of 100: the last 20 count for half."""
  train = np.ones((8, 2), np.float32)  # learns: always class 0
  got = fedu_jax.linear_probe(
      train, np.zeros(8, np.int32), np.ones((120, 2), np.float32),
      np.r_[np.zeros(100), np.ones(20)].astype(np.int32), jax.random.key(0),
      num_classes=2, batch_size=100, epochs=300)
  assert got == 0.5  # batch one all right, batch two all wrong: not 100/120


def test_probe_follows_adam_step_by_step():
  """Forty epochs of two ordered batches in NumPy give the same accuracy, far
  from that of a trained probe.
  """
  x, y = blobs(30, dims=4)
  rng = jax.random.key(3)
  rng_kernel, rng_bias = jax.random.split(rng)
  kernel = np.asarray(jax.random.uniform(rng_kernel, (4, 3), minval=-.5,
                                         maxval=.5), np.float64)
  bias = np.asarray(jax.random.uniform(rng_bias, (1, 3), minval=-.5, maxval=.5),
                    np.float64)
  params = np.vstack([kernel, bias])
  first, second = np.zeros_like(params), np.zeros_like(params)
  wide = np.hstack([x, np.ones((30, 1))])
  for t, rows in enumerate([slice(0, 20), slice(20, 30)] * 40, 1):
    logits = wide[rows] @ params
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    g = wide[rows].T @ (p - np.eye(3)[y[rows]]) / len(p)
    first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
    params -= 3e-3 * (first / (1 - 0.9**t)) / (
        np.sqrt(second / (1 - 0.999**t)) + 1e-8)
  right = (wide @ params).argmax(1) == y
  want = np.mean([right[:20].mean(), right[20:].mean()])
  got = fedu_jax.linear_probe(x, y, x, y, rng, num_classes=3, batch_size=20,
                              epochs=40)
  np.testing.assert_allclose(got, want, atol=1e-6)


def apply(module, variables, images):
  return module.apply(variables._asdict(), images, train=False,
                      method='features')


def test_embedding_is_in_evaluation_mode_and_batch_size_changes_nothing():
  encoder = small.noise(small.online()).encoder
  encoder = encoder._replace(batch_stats=jax.tree.map(
      jnp.abs, encoder.batch_stats))
  pixels = small.images(11)
  whole = apply(small.NETS.encoder, encoder,
                jnp.asarray(pixels, jnp.float32) / 255)
  for size in (1, 4, 11, 500):
    got = probes.embed(apply, small.NETS.encoder, encoder, pixels,
                       batch_size=size)
    small.check_close(got, whole, rtol=1e-3, atol=1e-3)


def test_images_on_disk_are_embedded_in_pieces_to_the_same_bits(monkeypatch):
  encoder, pixels, read = small.online().encoder, small.images(11), []
  late = lazy_arrays.Lazy(pixels.shape, pixels.dtype, lambda rows: (
      read.append(len(rows)), pixels[rows])[1])

  def embed(images):
    return np.asarray(probes.embed(apply, small.NETS.encoder, encoder, images,
                                   batch_size=2))
  whole = embed(pixels)
  monkeypatch.setattr(probes, '_AT_ONCE', 5 * pixels[0].nbytes)
  np.testing.assert_array_equal(embed(late), whole)
  assert read == [4, 4, 3]
