"""Scores and schedule against independent implementations, in float64.

An accuracy alone says little about the numbers behind it. So the examples of
the probe and of kNN are put so near to a change of the answer that a difference
of 1e-8 in its numbers would change the accuracy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10
import fedu_jax
from fedu_jax.evaluation import encoder_scores
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import semi_supervised
from fedu_jax.models import layers
from fedu_jax.models import networks
from fedu_jax.models import resnet
from fedu_jax.training.config import build
from tests.helpers import small

NEAR = 1e-8
WITHOUT = "parity needs PyTorch: pip install -e '.[parity]'"


@pytest.fixture(autouse=True)
def double():
  with jax.enable_x64():
    yield


# --- the linear probe (B4) -------------------------------------------------


def adam(params, gradients, rate):
  """Kingma and Ba's algorithm 1 with its default constants."""
  m, v = np.zeros_like(params), np.zeros_like(params)
  for t, gradient in enumerate(gradients, 1):
    g = gradient(params)
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    params = params - rate * (m / (1 - 0.9**t)) / (
        np.sqrt(v / (1 - 0.999**t)) + 1e-8)
  return params


def rendered_probe(params, x, y, *, epochs, batch, rate):
  """A linear layer [D + 1, C] with the bias in its last row; ordered batches.
  """
  wide = np.hstack([x, np.ones((len(x), 1))])
  target = np.eye(params.shape[1])[y]

  def gradient(rows):
    def fn(params):
      logits = wide[rows] @ params
      p = np.exp(logits - logits.max(1, keepdims=True))
      p /= p.sum(1, keepdims=True)
      return wide[rows].T @ (p - target[rows]) / len(p)
    return fn
  rows = [slice(i, i + batch) for i in range(0, len(x), batch)]
  return adam(params, [gradient(r) for r in rows] * epochs, rate)


def beside_the_boundary(params, queries):
  """Moves each query to just before and just behind its nearest change.

  Returns [2 Q, D], and the class that the layer gives to each, [2 Q].
  """
  found, classes = [], []
  for q in queries:
    logits = q @ params[:-1] + params[-1]
    second, first = np.argsort(logits)[-2:]
    normal = params[:-1, first] - params[:-1, second]
    at = q - normal * (logits[first] - logits[second]) / (normal @ normal)
    for side, label in ((1, first), (-1, second)):
      moved = at + side * NEAR * normal / np.linalg.norm(normal)
      if np.argmax(moved @ params[:-1] + params[-1]) == label:
        found.append(moved)
        classes.append(label)
  return np.array(found), np.array(classes, np.int32)


def test_the_probe():
  """Adam without decay, batches in the order of the data, a smaller last one.
  """
  draw = np.random.RandomState(0)
  x, y = draw.randn(30, 5), draw.randint(0, 3, 30).astype(np.int32)
  rng = jax.random.key(3)
  kernel, bias = (np.asarray(jax.random.uniform(
      key, shape, minval=-5**-.5, maxval=5**-.5)) for key, shape in zip(
          jax.random.split(rng), [(5, 3), (1, 3)]))
  params = rendered_probe(np.vstack([kernel, bias]), x, y, epochs=4, batch=12,
                          rate=3e-3)
  test, labels = beside_the_boundary(params, draw.randn(80, 5))
  test, labels = test[:107], labels[:107]
  assert len(test) == 107

  def probe(labels):
    return fedu_jax.linear_probe(
        jnp.asarray(x), jnp.asarray(y), jnp.asarray(test), jnp.asarray(labels),
        rng, num_classes=3, epochs=4, batch_size=12)
  assert probe(labels) == 1
  # The mean over nine batches of test images, of which the last has eleven.
  wrong = np.where(np.arange(107) < 100, labels, (labels + 1) % 3)
  np.testing.assert_allclose(probe(wrong), (8 + 4 / 11) / 9, rtol=1e-12)


# --- kNN (B6) --------------------------------------------------------------


def rendered_knn(bank, labels, query, *, k, temperature):
  """Returns the guess for one query."""
  bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
  similarity = bank @ (query / np.linalg.norm(query))
  votes = np.zeros(labels.max() + 1)
  for i in np.argsort(-similarity)[:k]:
    votes[labels[i]] += np.exp(similarity[i] / temperature)
  return votes.argmax()


def test_knn():
  """Queries are just before and just behind a change of the guess."""
  draw = np.random.RandomState(1)
  bank, labels = draw.randn(50, 6), draw.randint(0, 4, 50).astype(np.int32)
  guess = lambda q: rendered_knn(bank, labels, q, k=9, temperature=0.1)
  queries = []
  for a, b in draw.randn(60, 2, 6):
    if guess(a) == guess(b):
      continue
    while np.linalg.norm(a - b) > NEAR:
      middle = (a + b) / 2
      a, b = (middle, b) if guess(middle) == guess(a) else (a, middle)
    queries += [a, b]
  guesses = np.array([guess(q) for q in queries], np.int32)
  assert len(queries) > 60 and len(set(guesses)) == 4
  assert fedu_jax.knn_accuracy(bank, labels, np.array(queries), guesses, k=9,
                               temperature=0.1) == 1


def tiny():
  """Returns an encoder in PyTorch, the same in ours, and its module."""
  torch = pytest.importorskip('torch', reason=WITHOUT)
  from tests.helpers import torch_fedu
  from tests.helpers.torch_weights import from_torch
  torch.manual_seed(0)
  encoder = torch_fedu.Encoder(torch_fedu.Block, (1,), 4, 12, 8).double()
  module = networks.Encoder(
      resnet.ResNet(resnet.BasicBlock, (1,), 4), layers.MLP(12, 8))
  for _ in range(30):  # so that BatchNorm's statistics fit
    encoder(pixels(pictures(40, 9)))
  return encoder, from_torch(encoder), module


def pictures(count, seed):
  """Makes [count, 6, 6, 3] u8 pictures, each with its own colours.

  XLA multiplies by 1/255 where PyTorch divides by 255. Values for which float32
  rounds the two differently, by 6e-8, are left out.
  """
  value = np.arange(256, dtype=np.float32)
  alike = np.flatnonzero(value / np.float32(255)
                         == value * (np.float32(1) / np.float32(255)))
  assert len(alike) > 100
  draw = np.random.RandomState(seed)
  return draw.choice(alike, (count, 2, 2, 3)).repeat(3, 1).repeat(
      3, 2).astype(np.uint8)


def pixels(images):
  """Does the released code's ToTensor, as float64."""
  import torch
  scaled = images.astype(np.float32) / np.float32(255)
  return torch.tensor(scaled.astype(np.float64).transpose(0, 3, 1, 2))


def test_the_monitor():
  """kNN on the projector's output, in evaluation mode, with stored statistics.
  """
  encoder, ours, module = tiny()
  images, queries = pictures(80, 0), pictures(60, 1)
  labels = np.random.RandomState(3).randint(0, 5, 80).astype(np.int32)
  encoder.eval()
  bank, asked = (encoder(pixels(x)).detach().numpy() for x in (images, queries))
  guesses = np.array([rendered_knn(bank, labels, q, k=7, temperature=0.2)
                      for q in asked], np.int32)
  assert len(set(guesses)) == 5
  scorer = encoder_scores.Scorer(
      networks.Nets(module, layers.MLP(12, 8)), images, labels, queries,
      guesses,
      small.SETTINGS._replace(knn_neighbours=7, knn_temperature=0.2), 0)
  assert scorer.knn(ours) == 1
  np.testing.assert_allclose(
      scorer.embed(ours, queries, below_projector=False), asked, rtol=1e-10,
      atol=1e-12)
  np.testing.assert_allclose(
      scorer.embed(ours, queries), encoder.backbone(pixels(queries)).detach(),
      rtol=1e-10, atol=1e-12)


# --- the semi-supervised head (B5) -----------------------------------------


def rendered_head(encoder, head, images, labels, test, orders, *, batch, rate):
  """Trains the head; yields the logits of test images after each epoch.

  BatchNorm is in training mode until the first test, and not after it.
  """
  import torch
  optimiser = torch.optim.Adam(head.parameters(), lr=rate)
  encoder.train()
  head.train()
  for order in orders:
    for i in range(0, len(order), batch):
      rows = order[i:i + batch]
      with torch.no_grad():
        z = encoder.backbone(pixels(images[rows]))
      loss = torch.nn.functional.cross_entropy(
          head(z), torch.tensor(labels[rows], dtype=torch.long))
      optimiser.zero_grad()
      loss.backward()
      optimiser.step()
    encoder.eval()
    head.eval()
    with torch.no_grad():
      yield head(encoder.backbone(pixels(test))).numpy()


@pytest.mark.parametrize('depth', [2, 1])
def test_the_semi_supervised_head(depth, monkeypatch):
  """The logits of each epoch, and the best mean of batches' accuracies."""
  encoder, ours, module = tiny()
  import torch

  from tests.helpers import torch_fedu
  epochs, batch, rate, classes = 4, 8, 0.1, 3
  images, test = pictures(20, 4), pictures(50, 5)
  draw = np.random.RandomState(6)
  labels, answers = (draw.randint(0, classes, n).astype(np.int32)
                     for n in (20, 50))
  rng = jax.random.key(4)
  # Where both start, and in which order they go, is a matter of keys.
  rng_head, rng_order = jax.random.split(rng)
  drawn = layers.MLP(10, classes, layers=depth).init(
      rng_head, jnp.zeros((2, 4)), train=False)['params']
  orders = [np.asarray(jax.random.permutation(
      jax.random.fold_in(rng_order, e), 20)) for e in range(epochs)]
  head = (torch_fedu.mlp(4, 10, classes) if depth == 2
          else torch.nn.Sequential(torch.nn.Linear(4, classes))).double()
  linears = [m for m in head if isinstance(m, torch.nn.Linear)]
  for linear, name in zip(linears[::-1], ('linear2', 'linear1')):
    linear.weight.data = torch.tensor(np.asarray(drawn[name]['kernel']).T)
    linear.bias.data = torch.tensor(np.asarray(drawn[name]['bias']))
  want = list(rendered_head(encoder, head, images, labels, test, orders,
                            batch=batch, rate=rate))
  means = [np.mean([(x.argmax(1) == answers)[i:i + batch].mean()
                    for i in range(0, 50, batch)]) for x in want]

  seen = []
  def accuracy(logits, *args):
    seen.append(logits)
    return measured(logits, *args)
  measured = probes.accuracy
  monkeypatch.setattr(probes, 'accuracy', accuracy)
  got = semi_supervised.semi_supervised(
      module, ours, images, labels, test, answers, rng, num_classes=classes,
      layers=depth, hidden=10, epochs=epochs, batch_size=batch,
      learning_rate=rate)
  # The bias before BatchNorm has a gradient of mere rounding, which Adam
  # divides by 1e-8: hence not 1e-12 for the head of two layers.
  error = np.linalg.norm(np.subtract(seen, want)) / np.linalg.norm(want)
  assert error < (1e-7 if depth == 2 else 1e-12)
  np.testing.assert_allclose(got, max(means), rtol=1e-12)
  assert len(set(means)) > 1


# --- SGD and its schedule (A8, B1) -----------------------------------------


def test_the_schedule():
  """One rate a round by the cosine; momentum starts from zero in each round."""
  config = cifar10.get_config()
  config.rounds = 5
  chosen = config.optimizer
  make_tx = build.learner(
      config, networks.resnet6(width=2)).step.keywords['make_tx']
  draw = np.random.RandomState(7)
  w = start = draw.randn(4)
  ours = jnp.asarray(start)
  for r in range(5):
    rate = 0.5 * chosen.learning_rate * (np.cos(np.pi * r / 5) + 1)
    momentum = np.zeros(4)
    tx = make_tx(jnp.int32(r))
    state = tx.init(ours)
    for g in draw.randn(3, 4):
      momentum = 0.9 * momentum + g + 5e-4 * w
      w = w - rate * momentum
      updates, state = tx.update(jnp.asarray(g), state, ours)
      ours = ours + updates
  np.testing.assert_allclose(ours, w, rtol=1e-13)
  assert np.abs(w - start).max() > 0.01
