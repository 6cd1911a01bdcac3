"""Reads labelled images, by which encoders are scored and never trained.

Clients' images may have no labels. A probe needs labelled images to learn from
and others to be scored on, so the labelled images are split: half of each class
for either, drawn once and for all, unless a CSV says which is which.
"""

from collections.abc import Callable, Sequence
import pathlib
from typing import NamedTuple

import numpy as np

from fedu_jax.data import file_contents
from fedu_jax.data import folder_listing
from fedu_jax.data import image_folders
from fedu_jax.data import labelled_files
from fedu_jax.data.image_files import How
from fedu_jax.data.lazy_arrays import Images, Lazy
from fedu_jax.data.reading_report import some
from fedu_jax.data.reading_report import within
from fedu_jax.runtime.errors import BadInput


class LabelledImages(NamedTuple):
  """Two halves of labelled images, and what is to be said of them."""
  probe_images: Images  # [N, H, W, C] u8 or u16
  probe_labels: np.ndarray  # [N] i32
  test_images: Images
  test_labels: np.ndarray
  lines: tuple[str, ...]
  skipped: tuple[str, ...]  # files that were not read, with the reason


def read(test: str, how: How, trained: Sequence[pathlib.Path],
         progress: image_folders.Progress, say: Callable[[str], None]
         ) -> LabelledImages:
  """Reads what `data.test` names.

  Args:
    test: 'folder:<dir>' or 'csv:<file>', see `labelled_files`.
    how: the choices for decoding.
    trained: the files of the training images, as far as there are files.
    progress: called with (done, total) while files are decoded.
    say: prints a line before files are decoded.

  Returns:
    The images.

  Raises:
    BadInput: there are fewer than two classes, or a half is empty; or a file or
      folder is missing, unreadable or malformed.
  """
  found = labelled_files.listed(test)
  again, also = file_contents.same(found.files, trained)
  keep = [i for i in range(len(found.files)) if i not in again]
  decoded, _, files, _ = image_folders.read(
      found.root, folder_listing.Listing(
          [found.root], [[found.files[i] for i in keep]], [], [], []),
      how, False, progress, say, name='labelled',
      field='data.test', instead='name other images')
  rows = np.delete(np.array(keep), decoded.skipped)
  names, labels = np.unique([found.classes[i] for i in rows],
                            return_inverse=True)
  if len(names) < 2:
    raise BadInput(f'data.test: {test} has images of one class, '
                   f'{names[0]!r}; scores need two or more')
  probe = _of_probe(labels, [found.splits[i] for i in rows])
  if probe.all() or not probe.any():
    raise BadInput(f'data.test: {test} has no images to '
                   f'{"score on" if probe.all() else "train probes on"}: each '
                   'class needs two or more, or a CSV both splits')
  labels = labels.astype(np.int32)
  lines = [f'data.test: of {len(rows):,} labelled images of {len(names):,} '
           f'classes {probe.sum():,} train probes and {(~probe).sum():,} are '
           'scored; no encoder is trained on them', *_warnings(
               found, files.damaged, again, len(also & set(rows.tolist())),
               [str(x) for x, n in zip(names, np.bincount(labels)) if n == 1])]
  skipped = (*found.passed, *files.damaged,
             *(f'{x} (not there)' for x in found.absent),
             *(f'{within(found.files[i], found.root)} (the same image as '
               'another)' for i in again))
  return LabelledImages(
      _rows(decoded.images, probe), labels[probe],
      _rows(decoded.images, ~probe), labels[~probe],
      tuple(lines), tuple(f'data.test: {x}' for x in skipped))


def _rows(images: Images, chosen: np.ndarray) -> Images:
  """Selects images; a large cache stays on disk."""
  return images.take(np.flatnonzero(chosen)) if isinstance(
      images, Lazy) else images[chosen]


def _of_probe(labels: np.ndarray, splits: list[str]) -> np.ndarray:
  """Which images train probes, [N] bool: half of each class, rounded up."""
  if splits[0]:
    return np.array([x == 'train' for x in splits])
  chosen = np.zeros(len(labels), bool)
  for label in range(labels.max() + 1):
    mine = np.random.RandomState(0).permutation(np.flatnonzero(labels == label))
    chosen[mine[:(len(mine) + 1) // 2]] = True
  return chosen


def _warnings(found: labelled_files.Listed, damaged: tuple[str, ...],
              again: dict[int, int], also: int, alone: list[str]) -> list[str]:
  """Returns a line on each kind of poor data."""
  lines = []
  if damaged:
    lines.append(f'skipped {len(damaged):,} files that cannot be read: '
                 + some(damaged))
  if found.absent:
    lines.append(f'{len(found.absent):,} files of the CSV are not there: '
                 + some(found.absent))
  if again:
    other = sum(found.classes[i] != found.classes[j] for i, j in again.items())
    lines.append(
        f'{len(again):,} files have the content of another and are left out'
        + (f'; {other:,} of them have another label than that one'
           if other else ''))
  if alone:
    lines.append('of these classes there is one image, which trains probes: '
                 + some(alone))
  if also:
    lines.append(
        f'{also:,} labelled images are also training images, so that scores '
        'may be too high; data.leave_out leaves folders out of training')
  return [f'data.test: {x}' for x in lines]
