"""Wrong arguments of public functions raise a clear ValueError."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.data import partition
from fedu_jax.evaluation import probes
from fedu_jax.learners import augment
from tests.helpers import small

X, Y = np.eye(4, 3, dtype=np.float32), np.array([0, 1, 2, 0])
PIXELS = small.images(4)
RNG = jax.random.key(0)


def embed(images, **choices):
  return fedu_jax.embed(probes.features, small.NETS.encoder,
                        small.online().encoder, images, **choices)


@pytest.mark.parametrize('images', [
    PIXELS / 255, PIXELS.astype(np.int32), PIXELS[0], PIXELS[:, :, :, 0],
    PIXELS[:, :0], list(PIXELS), np.zeros((0, 6, 6, 3))])
def test_images_must_be_bytes(images):
  """Floats in 0..1 would be divided by 255, and give features of black images.
  """
  with pytest.raises(ValueError, match=r'must be uint8 or uint16 \[N, H, W'):
    embed(images)
  with pytest.raises((ValueError, AttributeError), match='uint8|shape'):
    augment.make_view()(images, RNG)


def test_no_images_have_no_features():
  found = embed(PIXELS[:0])
  assert found.shape == (0, 4) and found.dtype == embed(PIXELS).dtype


def test_images_of_other_channels():
  with pytest.raises(ValueError, match='cannot take images'):
    embed(PIXELS[..., :1])
  with pytest.raises(ValueError, match='W, 1 or 3'):
    augment.make_view()(PIXELS[..., :2], RNG)
  with pytest.raises(ValueError, match='batch_size is 0'):
    embed(PIXELS, batch_size=0)


BAD_ROWS = [
    ((X[:0], Y[:0]), 'at least one row'), ((X[:, :0], Y), 'at least one row'),
    ((X[0], Y), 'must be'), ((X, Y[:3]), 'one for each row'),
    ((X, Y * 1.0), 'whole numbers'), ((X, Y - 1), 'from 0 to')]


@pytest.mark.parametrize('rows, match', BAD_ROWS)
def test_scores_of_no_such_rows(rows, match):
  probe = lambda *rows: fedu_jax.linear_probe(*rows, RNG, num_classes=3,
                                              epochs=1)
  for score in (fedu_jax.knn_accuracy, probe):
    with pytest.raises(ValueError, match=match):
      score(*rows, X, Y)
    with pytest.raises(ValueError, match=match):
      score(X, Y, *rows)


def test_scores_of_other_numbers():
  with pytest.raises(ValueError, match=r'must be \[N, 3\]'):
    fedu_jax.knn_accuracy(X, Y, X[:, :2], Y)
  with pytest.raises(ValueError, match='k is 0'):
    fedu_jax.knn_accuracy(X, Y, X, Y, k=0)
  with pytest.raises(ValueError, match='temperature'):
    fedu_jax.knn_accuracy(X, Y, X, Y, temperature=0.)
  for choices, match in [(dict(num_classes=2), 'from 0 to 1'),
                         (dict(num_classes=3, epochs=0), 'epochs is 0'),
                         (dict(num_classes=3, batch_size=0), 'batch_size')]:
    with pytest.raises(ValueError, match=match):
      fedu_jax.linear_probe(X, Y, X, Y, RNG, **choices)
  assert fedu_jax.knn_accuracy(X.tolist(), Y.tolist(), X, Y, k=1) == 1
  whole = fedu_jax.linear_probe(X.astype(np.int32), Y, X, Y, RNG,
                                num_classes=3, epochs=1)
  assert 0 <= whole <= 1


@pytest.mark.parametrize('parts, match', [
    ([], 'no parts'), ([np.array([-1])], 'from 0 to 3'),
    ([np.array([4])], 'from 0 to 3'), ([np.array([0.5])], 'whole numbers'),
    ([np.ones(4, bool)], 'whole numbers')])
def test_parts_must_be_rows(parts, match):
  with pytest.raises(ValueError, match=match):
    fedu_jax.client_arrays(PIXELS, parts)


def test_batches_and_clients():
  arrays = fedu_jax.ClientArrays(jnp.asarray(PIXELS), jnp.int32(4))
  for choices in (dict(batch_size=0, epochs=1), dict(batch_size=2, epochs=0)):
    with pytest.raises(ValueError, match='is 0; it must be at least 1'):
      fedu_jax.make_batches(arrays, RNG, jnp.int32(0), **choices)
  for sizes in (4, [], [[4]]):
    with pytest.raises(ValueError, match=r'must be \[K\]'):
      fedu_jax.init_clients(small.online(), np.array(sizes))
  with pytest.raises(ValueError, match='0 clients'):
    partition.iid(Y, 0, np.random.RandomState(0))


def test_a_loss_of_two_shapes():
  with pytest.raises(ValueError, match='must be the same'):
    fedu_jax.regression_loss(jnp.ones((4, 3)), jnp.ones((4, 1)))
