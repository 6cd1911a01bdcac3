"""Protocols: ways to score an encoder, chosen by name.

'linear,knn,semi:0.01,transfer:digits' names four. The text after the first
colon is the protocol's choice. A protocol is a function (scorer, online,
choice) -> scores.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import numpy as np

from fedu_jax.core.state import Online
from fedu_jax.data import sources
from fedu_jax.evaluation import geometry as measures
from fedu_jax.evaluation import semi_supervised
from fedu_jax.evaluation.encoder_scores import mixed
from fedu_jax.evaluation.encoder_scores import Scorer
from fedu_jax.runtime.errors import BadInput

Score = Callable[[Scorer, Online, str], dict[str, float]]


class Protocol(NamedTuple):
  """A protocol and its needs."""
  score: Score
  labels: bool = True  # needs labels of the run's training and test images


def linear(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """The linear probe on features below the projector.

  linear:raw does not standardise features, whatever the config says.
  """
  if choice not in ('', 'raw'):
    raise BadInput(f'protocol linear:{choice}: use linear, or linear:raw for '
                   'features as they are')
  if not choice:
    return {'linear': scorer.linear(online.encoder)}
  return {'linear, raw features': scorer.raw().linear(online.encoder)}


def knn(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """kNN on the projector's output, the released code's monitor."""
  _nothing('knn', choice)
  return {'knn': scorer.knn(online.encoder)}


def knn_features(scorer: Scorer, online: Online,
                 choice: str) -> dict[str, float]:
  """kNN on features below the projector."""
  _nothing('knn_features', choice)
  return {'knn, features': scorer.knn(online.encoder, below_projector=True)}


def classifier(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """A supervised federation's own classifier, without a probe."""
  _nothing('classifier', choice)
  if not scorer.classifies:
    raise BadInput('protocol classifier is for runs of learner supervised, '
                   'which train one: choose linear')
  return {'classifier': scorer.classifier(online)}


def semi(scorer: Scorer, online: Online, choice: str, *,
         fine_tune: bool = False) -> dict[str, float]:
  """A head trained on a share of the labels, as in the released code.

  semi:0.01 uses 1 % of them; semi:0.01:balanced draws them evenly by class.
  """
  name = 'finetune' if fine_tune else 'semi'
  ratio, _, how = choice.partition(':')
  try:
    order = mixed(scorer.train_labels, scorer.seed)
    rows = order[semi_supervised.labelled_rows(
        scorer.train_labels[order], float(ratio), balanced=how == 'balanced')]
    if how not in ('', 'balanced'):
      raise ValueError(f'{how!r} is not balanced')
  except (ValueError, OverflowError) as error:
    raise BadInput(f'protocol {name}:{choice} ({error}): use {name}:<share of '
                   f'the labels>, such as {name}:0.01 or {name}:0.01:balanced'
                   ) from error
  accuracy = semi_supervised.semi_supervised(
      scorer.nets.encoder, online.encoder, scorer.train_images[rows],
      scorer.train_labels[rows], scorer.test_images, scorer.test_labels,
      jax.random.key(scorer.seed), num_classes=scorer.num_classes,
      fine_tune=fine_tune, hidden=scorer.settings.semi_hidden,
      epochs=scorer.settings.semi_epochs)
  return {f'{name} {100 * float(ratio):g} %' + (f', {how}' if how else ''):
          accuracy}


def transfer(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """The linear probe on another data set: transfer:<data source>."""
  images = scorer.train_images
  data = sources.load(choice, data_dir=scorer.data_dir,
                      image_size=images.shape[1], channels=images.shape[3],
                      keep_depth=images.dtype == np.uint16)
  if data.train_labels is None or data.test_labels is None:
    raise BadInput(f'protocol transfer:{choice} needs labelled training and '
                   'test images: choose another data set')
  assert data.test_images is not None  # labels never come without images
  here, other = scorer.train_images.shape[-1], data.train_images.shape[-1]
  if here != other:
    raise BadInput(f'protocol transfer:{choice}: its images have {other} '
                   f'channels, and this encoder takes {here}: choose another '
                   'data set')
  there = scorer._replace(
      train_images=np.asarray(data.train_images),
      train_labels=data.train_labels,
      test_images=np.asarray(data.test_images), test_labels=data.test_labels)
  return {f'transfer to {choice.removeprefix("tfds:")}':
          there.linear(online.encoder)}


def geometry(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """The geometry of the test images' features, without labels.

  Alignment and uniformity (Wang & Isola 2020) measure the distance of two views
  of an image, and the uneven spread of images on the sphere. Lower is better
  for both. The effective rank is the number of directions that features vary
  in. Without test images, the training images are used.
  """
  _nothing('geometry', choice)
  images = scorer.test_images
  if not len(images):
    images = scorer.train_images
  scorer = scorer._replace(train_images=images)
  z = scorer.embed(online.encoder, images)
  return {'alignment': scorer.alignment(online.encoder),
          'uniformity': float(measures.uniformity(z)),
          'effective rank': float(measures.effective_rank(z))}


PROTOCOLS: dict[str, Protocol] = {
    'linear': Protocol(linear), 'knn': Protocol(knn),
    'knn_features': Protocol(knn_features), 'classifier': Protocol(classifier),
    'semi': Protocol(semi),
    'finetune': Protocol(functools.partial(semi, fine_tune=True)),
    'transfer': Protocol(transfer, labels=False),
    'geometry': Protocol(geometry, labels=False)}


class Asked(NamedTuple):
  """One protocol of a text."""
  text: str  # as written, such as semi:0.01
  protocol: Protocol
  choice: str  # the text after the first colon, or ''


def parse(text: str) -> list[Asked]:
  """Parses a text of protocols, separated by commas.

  Raises:
    BadInput: a name is no protocol.
  """
  found = []
  for part in text.split(','):
    name, _, choice = part.strip().partition(':')
    if name not in PROTOCOLS:
      raise BadInput(f'protocol {part.strip()!r}: choose from '
                     f'{", ".join(PROTOCOLS)}')
    found.append(Asked(part.strip(), PROTOCOLS[name], choice))
  return found


def _nothing(name: str, choice: str) -> None:
  if choice:
    raise BadInput(f'protocol {name} takes no choice, not {choice!r}')
