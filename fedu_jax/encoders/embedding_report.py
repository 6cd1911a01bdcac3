"""Makes the page of a file of embeddings, with thumbnails of its images."""

from collections.abc import Iterator
import pathlib

import numpy as np
from PIL import Image

from fedu_jax.core import pixels
from fedu_jax.encoders import embedding_files
from fedu_jax.encoders import report_page
from fedu_jax.encoders.embedding_files import Part
from fedu_jax.encoders.image_rows import Rows
from fedu_jax.runtime.errors import BadInput

_NEAR = 4  # rows that are read to reach the next thumbnail


def write(page: pathlib.Path, file: pathlib.Path, images: Rows) -> int:
  """Writes the page.

  It reads the file in parts, and keeps what the page shows.

  Args:
    page: the HTML file.
    file: the file of embeddings.
    images: the images of which the file has rows.

  Returns:
    The number of images on the page.

  Raises:
    BadInput: the file has no row, or names an image that is not there.
    OSError: the page cannot be written.
  """
  count = sum(len(part.names) for part in embedding_files.read(file))
  names: list[str] = []
  clients: list[str] = []
  labels: list[int] = []
  features = []
  for part in _chosen(file, report_page.rows(count)):
    names += part.names
    clients += part.clients
    labels += part.labels
    features.append(part.features)
  of_name = {name: row for row, name in enumerate(images.names)}
  if missing := [name for name in names if name not in of_name]:
    raise BadInput(f'{file} has a row for {missing[0]}, which is not among '
                   '--images: name the images that it was made of')

  groups = {}
  if any(clients):
    groups['client'] = clients
  if any(label >= 0 for label in labels):
    groups['label'] = [str(label) if label >= 0 else 'none' for label in labels]
  left = count - len(names)
  report_page.write(page, report_page.Shown(
      f'Embeddings of {count:,} images',
      f'From {file.name}.' + (f' {left:,} of them are left out: the page shows '
                              'others evenly, and none whose features are not '
                              'finite.' if left else ''),
      names, np.concatenate(features) if features else np.zeros((0, 1)),
      groups), _thumbnails(images, [of_name[name] for name in names]))
  return len(names)


def _thumbnails(images: Rows, rows: list[int]) -> Iterator[np.ndarray]:
  """Yields the thumbnails of some rows, in order.

  Rows that are near each other are read together, in threads.
  """
  first = 0
  for last in range(1, len(rows) + 1):
    if last < len(rows) and 0 < rows[last] - rows[last - 1] <= _NEAR:
      continue
    wanted = set(rows[first:last])
    near = range(rows[first], rows[last - 1] + 1)
    for row, image in zip(near, images.read(near)):
      if row in wanted:
        yield _small(image) if isinstance(image, np.ndarray) else np.zeros(
            (report_page.TILE, report_page.TILE, 3), np.uint8)
    first = last


def _chosen(file: pathlib.Path, rows: np.ndarray) -> Iterator[Part]:
  """Yields the parts of some rows of a file, without features not finite."""
  first = 0
  for part in embedding_files.read(file):
    mine = rows[(rows >= first) & (rows < first + len(part.names))] - first
    first += len(part.names)
    mine = mine[np.isfinite(part.features[mine]).all(1)]
    yield Part([part.names[i] for i in mine], [part.clients[i] for i in mine],
               [int(part.labels[i]) for i in mine], part.features[mine])


def _small(image: np.ndarray) -> np.ndarray:
  """A thumbnail, [TILE, TILE, 3] u8, of [H, W, 1 or 3] u8 or u16."""
  if image.dtype != np.uint8:
    image = pixels.from_unit(pixels.to_unit(image), np.uint8)
  picture = Image.fromarray(np.repeat(image, 3 // image.shape[2], 2))
  return np.asarray(picture.resize((report_page.TILE, report_page.TILE),
                                   Image.Resampling.BILINEAR))
