"""Records of a run's data in its folder: digests of images, and counts.

A run is identified by its images, not by their place. `images.json` has a
digest of each client's pixels, and digests of labels and test images.
"""

from collections.abc import Sequence
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
from rich.console import Console

from fedu_jax.data import reading_report
from fedu_jax.data import sources
from fedu_jax.data.client_table import client_table
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import json_files
from fedu_jax.runtime import multihost
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput

IMAGES = 'images.json'
_COUNTS = 'partition.json'
_BYTES = 16  # of a digest
_AT_ONCE = 1024  # images that are read at a time

# 'clients': a digest of each client's images; 'labels', 'test_images' and
# 'test_labels': one digest, or None if the data has none; 'shape' and 'dtype':
# those of the training images.
Digests = dict[str, Any]


def digests(data: sources.Dataset, parts: Sequence[np.ndarray],
            hosts: Sequence[int] = ()) -> Digests:
  """Reads all images once, and returns digests of them.

  Each of several hosts reads its own clients, and all return the same.

  Args:
    data: the data.
    parts: for each client, the rows of the training examples that it owns.
    hosts: the host of each client, if there are several hosts. The first host
      also reads the test images.

  Raises:
    BadInput: an image cannot be read.
  """
  def work(i: int) -> bytes:
    if i < len(parts):
      return _of_images(data.train_images, parts[i])
    test = data.test_images
    return bytes(_BYTES) if test is None else _of_images(
        test, np.arange(len(test)))
  *clients, test = multihost.shared(
      [*(hosts or [0] * len(parts)), 0], _BYTES, work)
  labels = data.train_labels
  probe = {} if data.probe_images is None or data.probe_labels is None else {
      'probe_images': _of_images(
          data.probe_images, np.arange(len(data.probe_images))).hex(),
      'probe_labels': _of_labels([data.probe_labels])}
  return probe | {
      'clients': [x.hex() for x in clients],
      'labels': None if labels is None else _of_labels(
          [labels[part] for part in parts]),
      'test_images': None if data.test_images is None else test.hex(),
      'test_labels': None if data.test_labels is None else _of_labels(
          [data.test_labels]),
      'shape': list(data.train_images.shape[1:]),
      'dtype': str(data.train_images.dtype)}


def _of_images(images: Images, rows: np.ndarray) -> bytes:
  digest = hashlib.blake2b(
      f'{images.dtype} {len(rows)} {images.shape[1:]}'.encode(),
      digest_size=_BYTES)
  for i in range(0, len(rows), _AT_ONCE):
    digest.update(np.ascontiguousarray(images[rows[i:i + _AT_ONCE]]).data)
  return digest.digest()


def _of_labels(labels: Sequence[np.ndarray]) -> str:
  """A digest of labels and of the number of labels of each client."""
  digest = hashlib.blake2b(digest_size=_BYTES)
  for mine in labels:
    digest.update(f'{len(mine)} '.encode())
    digest.update(np.ascontiguousarray(mine, '<i8').data)
  return digest.hexdigest()


def known(folder: pathlib.Path) -> Digests | None:
  """Returns the digests in a run's folder; None if there are none.

  Runs of earlier versions have none, and a damaged file counts as none.
  """
  try:
    found = json.loads((folder / IMAGES).read_text())
    return found if isinstance(found['clients'], list) else None
  except (OSError, ValueError, TypeError, KeyError):
    return None


def pixels_of(folder: pathlib.Path
              ) -> tuple[tuple[int, int, int], str] | None:
  """Returns the shape [H, W, C] and the dtype of the images of a run.

  Returns:
    None if the folder does not say it: runs of earlier versions do not.
  """
  found = known(folder) or {}
  try:
    height, width, channels = map(int, found['shape'])
    return (height, width, channels), str(np.dtype(found['dtype']))
  except (KeyError, TypeError, ValueError):
    return None


def check(folder: pathlib.Path, data: sources.Dataset,
          parts: Sequence[np.ndarray], found: Digests, *, name: str) -> None:
  """Checks that the images are those that a run began with.

  Runs of earlier versions have no digests. For these, the number of examples of
  each class and client must be the same.

  Args:
    folder: the folder of the run.
    data: the data as it is now.
    parts: for each client, the rows that it owns.
    found: the digests of the data.
    name: the flag that sets the place of the data, for the message.

  Raises:
    BadInput: the images are not the same.
  """
  before = known(folder)
  if before is None:
    kept, wrong = _COUNTS, _other_counts(folder, data, parts)
  else:
    kept, wrong = IMAGES, _other_images(before, found)
  if wrong:
    raise BadInput(f'the data are no longer those that {folder} began with: '
                   f'{wrong} (see {kept} there); restore them, name their '
                   f'place with {name}, or choose another --workdir')


def _other_images(before: Digests, found: Digests) -> str | None:
  """Returns in what digests differ; None if they are the same."""
  theirs, ours = before['clients'], found['clients']
  if len(theirs) != len(ours):
    return f'there were {len(theirs)} clients, not {len(ours)}'
  if others := [i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b]:
    return (f'the images of {len(others)} of {len(ours)} clients differ, such '
            f'as those of client {others[0]}')
  for what in ('labels', 'test_images', 'test_labels', 'probe_images',
               'probe_labels'):
    # New labels or test images are allowed: they change no past round.
    if before.get(what) not in (None, found.get(what)):
      return f'the {what.replace("_", " ")} ' + (
          'differ' if found.get(what) else 'are not there')
  return None


def _other_counts(folder: pathlib.Path, data: sources.Dataset,
                  parts: Sequence[np.ndarray]) -> str | None:
  """Returns in what counts differ; None if they are the same, or unknown."""
  try:
    before = json.loads((folder / _COUNTS).read_text())
  except (OSError, ValueError):
    return None  # the run has not begun, or the file is damaged
  return None if before == _counts(data, parts)[1] else (
      'clients have other numbers of images')


def show(data: sources.Dataset, parts: Sequence[np.ndarray],
         console: Console) -> None:
  """Prints the table of clients, and what of the data was not read."""
  table = client_table(data.train_labels, list(parts), data.owners,
                       data.owner_names)
  if table is not None:
    console.print(table)
  for line in (reading_report.lines(data.files) if data.files else
               reading_report.skipped_lines(data.skipped)):
    terminal.say(console, line)
  for line in data.lines:
    terminal.say(console, line)


def damaged(folder: pathlib.Path) -> str | None:
  """Returns a warning if the digests of a run cannot be read, else None."""
  if known(folder) is not None or not (folder / IMAGES).exists():
    return None
  return (f'{folder / IMAGES} cannot be read: that these are the images that '
          'the run began with is known by their counts alone')


def write(folder: pathlib.Path, data: sources.Dataset,
          parts: Sequence[np.ndarray], found: Digests
          ) -> list[durable_files.Unwritten]:
  """Writes the digests and what `show` prints; returns what failed."""
  shown, counts = _counts(data, parts)
  files = {IMAGES: found, _COUNTS: None if shown is None else counts,
           'skipped.json': data.skipped or None}
  return [failure for name, value in files.items() if value is not None
          and (failure := json_files.attempt(folder / name, value))]


def _counts(data: sources.Dataset, parts: Sequence[np.ndarray]
            ) -> tuple[np.ndarray | None, list[list[int]]]:
  """Returns classes, or else owners, [N], and each client's counts of them."""
  shown = data.owners if data.train_labels is None else data.train_labels
  return shown, [] if shown is None else [
      np.bincount(shown[part]).tolist() for part in parts]
