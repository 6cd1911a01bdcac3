"""Nearest neighbours, near-duplicates and outliers of a set of embeddings."""

from typing import NamedTuple

import numpy as np

_ROWS = 1024  # that are compared with all others at a time
DUPLICATE = 0.98  # the least similarity of two images that count as one


class Neighbours(NamedTuple):
  """The nearest other images of each image, nearest first."""
  rows: np.ndarray  # [N, k] i64
  similarity: np.ndarray  # [N, k] f32, cosines of centred features


def directions(features: np.ndarray) -> np.ndarray:
  """Centres features and scales them to length 1, [N, D] f32 -> [N, D] f32.

  Features that are no negative numbers have a large common part. Without it,
  cosines tell images apart.
  """
  centred = features - features.mean(0, keepdims=True)
  length = np.linalg.norm(centred, axis=1, keepdims=True)
  return centred / np.maximum(length, 1e-12)


def nearest(features: np.ndarray, count: int) -> Neighbours:
  """Finds the nearest neighbours of all images by the cosine.

  It compares all pairs, in blocks, so that memory grows with N and not with its
  square.

  Args:
    features: [N, D] f32, finite.
    count: k; at most N - 1 are found.
  """
  units = directions(features)
  count = min(count, len(units) - 1)
  rows = np.zeros((len(units), count), np.int64)
  similarity = np.zeros((len(units), count), np.float32)
  for first in range(0, len(units), _ROWS):
    block = np.arange(first, min(first + _ROWS, len(units)))
    cosines = units[block] @ units.T
    cosines[np.arange(len(block)), block] = -np.inf  # not of itself
    some = np.argpartition(-cosines, min(count, len(units) - 1) - 1, 1
                           )[:, :count] if count else rows[block]
    found = np.take_along_axis(cosines, some, 1)
    # Equal images keep the order of their rows, on every machine.
    order = np.lexsort((some, -found), axis=1)
    rows[block] = np.take_along_axis(some, order, 1)
    similarity[block] = np.take_along_axis(found, order, 1)
  return Neighbours(rows, similarity)


def duplicates(found: Neighbours, most: int) -> list[tuple[int, int, float]]:
  """Lists pairs of images that are nearly the same, the most similar first.

  Args:
    found: the neighbours of all images.
    most: the number of pairs to list.

  Returns:
    (row, row, similarity) of each pair, of at least `DUPLICATE`.
  """
  pairs = {}
  for one, k in zip(*np.nonzero(found.similarity >= DUPLICATE)):
    pair = tuple(sorted((int(one), int(found.rows[one, k]))))
    pairs[pair] = float(found.similarity[one, k])
  ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
  return [(a, b, similarity) for (a, b), similarity in ordered[:most]]


def outliers(found: Neighbours, most: int) -> np.ndarray:
  """Lists the rows of the images that are farthest from all others.

  Args:
    found: the neighbours of all images.
    most: the number of images to list.
  """
  if not found.rows.shape[1]:
    return np.zeros(0, np.int64)
  return np.argsort(found.similarity[:, 0], kind='stable')[:most]
