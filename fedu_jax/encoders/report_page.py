"""A page to look at embeddings: a map, neighbours, duplicates and outliers.

The page is one HTML file that loads nothing from elsewhere.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
import io
import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fedu_jax.encoders import neighbours
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput

MOST = 10_000  # images of a page; a browser stays quick with as many
TILE = 48  # pixels of a side of a thumbnail
_ACROSS = 40  # thumbnails in a row and in a column of a sheet
_NEAREST = 8  # neighbours that are shown of an image
_QUERIES = 12  # images of which neighbours are shown
_PAIRS = 24
_OUTLIERS = 24
_GROUPS = 12  # with a colour of their own; the rest share one
_DIRECTIONS = 50  # that the map starts from


class Shown(NamedTuple):
  """What a page shows.

  Attributes:
    title: the title.
    note: a sentence below the title.
    names: a name for each image, [N].
    features: [N, D] f32, finite.
    groups: ways to colour the map, such as 'client': a text for each image.
  """
  title: str
  note: str
  names: Sequence[str]
  features: np.ndarray
  groups: Mapping[str, Sequence[str]]


def rows(count: int) -> np.ndarray:
  """The rows of `count` images that a page shows: evenly, at most `MOST`."""
  return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))


def write(path: pathlib.Path, shown: Shown,
          thumbnails: Iterable[np.ndarray]) -> None:
  """Writes the page, as a whole or not at all.

  Args:
    path: the HTML file.
    shown: the images and their features.
    thumbnails: for each image, in order, [TILE, TILE, 3] u8.

  Raises:
    BadInput: there is no image, or jinja2 is not installed.
    OSError: the file cannot be written.
  """
  if not len(shown.names):
    raise BadInput('--report shows images, and there is none')
  found = neighbours.nearest(shown.features, _NEAREST)
  queries = np.unique(np.linspace(0, len(shown.names) - 1, _QUERIES
                                  ).astype(int))
  text = template().render(
      title=shown.title, note=shown.note, names=list(shown.names), tile=TILE,
      across=_ACROSS, sheets=list(_sheets(len(shown.names), thumbnails)),
      duplicate=neighbours.DUPLICATE,
      queries=[(int(row), list(zip(found.rows[row].tolist(),
                                   found.similarity[row].tolist())))
               for row in queries],
      pairs=neighbours.duplicates(found, _PAIRS),
      outliers=[(int(row), float(found.similarity[row, 0]))
                for row in neighbours.outliers(found, _OUTLIERS)],
      data={'map': _text_of(_positions(shown.features)),
            'names': list(shown.names),
            'groups': {name: _group(values)
                       for name, values in shown.groups.items()}})
  durable_files.write(path, text.encode())


def template() -> Any:
  """Returns the page's template, which escapes all text.

  Raises:
    BadInput: jinja2 is not installed.
  """
  try:
    import jinja2
  except ImportError as error:
    raise BadInput("--report needs jinja2: pip install 'fedu_jax[embed]'"
                   ) from error
  return jinja2.Environment(
      loader=jinja2.PackageLoader('fedu_jax.encoders', ''), autoescape=True,
      trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
  ).get_template('report_page.html.jinja')


def _positions(features: np.ndarray) -> np.ndarray:
  """Places images on a map by t-SNE, [N, 2] u16; few images by PCA."""
  from sklearn import decomposition
  from sklearn import manifold
  units = neighbours.directions(features)
  wanted = min(_DIRECTIONS, *units.shape)
  places = decomposition.PCA(wanted, random_state=0).fit_transform(units)
  if len(places) >= 8 and wanted >= 2 and np.ptp(places) > 0:
    places = manifold.TSNE(
        init='pca', random_state=0, n_jobs=-1,
        perplexity=min(30, (len(places) - 1) / 3)).fit_transform(places)
  places = np.pad(places, ((0, 0), (0, 2)))[:, :2]
  low, high = places.min(0), places.max(0)
  share = (places - low) / np.where(high > low, high - low, 1)
  return np.round(65535 * share).astype('<u2')


def _group(values: Sequence[str]) -> dict[str, Any]:
  """Numbers groups by size; those after the first dozen share a number."""
  names, inverse, counts = np.unique(np.asarray(values, str),
                                     return_inverse=True, return_counts=True)
  order = np.argsort(-counts, kind='stable')
  rank = np.argsort(order)
  own = len(names) if len(names) <= _GROUPS else _GROUPS - 1
  legend = [f'{names[i]} ({counts[i]:,})' for i in order[:own]]
  if own < len(names):
    rest = order[own:]
    legend.append(f'{len(rest):,} others ({counts[rest].sum():,})')
  return {'legend': legend,
          'of': _text_of(np.minimum(rank, own)[inverse].astype(np.uint8)),
          'names': [str(names[i]) for i in order],
          'exact': _text_of(rank[inverse].astype('<u4'))}


def _sheets(count: int, thumbnails: Iterable[np.ndarray]) -> Iterator[str]:
  """Puts thumbnails side by side on JPEG sheets, and returns their bytes."""
  each, left = _ACROSS**2, iter(thumbnails)
  for first in range(0, count, each):
    number = min(each, count - first)
    down = -(-number // _ACROSS)
    sheet = np.zeros((down, TILE, _ACROSS, TILE, 3), np.uint8)
    for i in range(number):
      sheet[i // _ACROSS, :, i % _ACROSS] = next(left)
    content = io.BytesIO()
    Image.fromarray(sheet.reshape(down * TILE, -1, 3)).save(
        content, 'JPEG', quality=80)
    yield base64.b64encode(content.getvalue()).decode()


def _text_of(array: np.ndarray) -> str:
  return base64.b64encode(array.tobytes()).decode()
