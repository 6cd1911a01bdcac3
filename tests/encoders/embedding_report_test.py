"""The page of a file of embeddings."""

import json
import re

import numpy as np
import pytest

from fedu_jax.encoders import embedding_files
from fedu_jax.encoders import embedding_report
from fedu_jax.encoders import image_rows
from fedu_jax.encoders import report_page
from fedu_jax.encoders.about import About
from fedu_jax.runtime.errors import BadInput

NAMES = [f'{"ab"[i % 2]}/{i}.png' for i in range(12)]
ABOUT = About((8, 8), 1, 'uint16', 5)


def rows(names, read):
  return image_rows.Rows(names, [''] * len(names), [-1] * len(names), '', read)


@pytest.fixture
def file(tmp_path):
  """Eleven of twelve rows: one image could not be read; one row is infinite."""
  features = np.random.RandomState(0).randn(12, 5).astype(np.float32)
  features[4] = np.inf
  kept = [i for i in range(12) if i != 7]
  path = tmp_path / 'found.npz'
  embedding_files.writer(path)(path, lambda: iter([embedding_files.Part(
      [NAMES[i] for i in kept], [NAMES[i][0] for i in kept],
      [i % 3 if i % 3 else -1 for i in kept], features[kept])]), ABOUT)
  return path


def test_a_page_has_the_rows_of_a_file(file, tmp_path):
  """Each row has the thumbnail of its own image, of 16 bits here."""
  read = []

  def images(mine):
    read.extend(mine)
    return iter([np.full((8, 8, 1), 5000 * i, np.uint16) for i in mine])
  page = tmp_path / 'page.html'
  assert embedding_report.write(page, file, rows(NAMES, images)) == 10
  data = json.loads(re.search('const data = (.*?), tile = ',
                              page.read_text())[1])
  assert data['names'] == [NAMES[i] for i in range(12) if i not in (4, 7)]
  assert read == list(range(12))  # at once, since they are near
  assert data['groups']['client']['names'] == ['a', 'b']
  assert sorted(data['groups']['label']['names']) == ['1', '2', 'none']
  assert '1 of them are left out' in page.read_text()


def test_thumbnails_of_a_thinned_set_are_of_its_rows():
  """Rows far from each other are read alone; an unreadable one is black."""
  read = []

  def images(mine):
    read.append(mine)
    return iter(['damaged' if i == 50 else np.full((8, 8, 3), i, np.uint8)
                 for i in mine])
  found = list(embedding_report._thumbnails(rows([''] * 100, images),
                                            [3, 4, 7, 50, 90]))
  assert [int(x[0, 0, 0]) for x in found] == [3, 4, 7, 0, 90]
  assert read == [range(3, 8), range(50, 51), range(90, 91)]


def test_thumbnails_keep_their_brightness():
  small = embedding_report._small(np.full((8, 8, 1), 2**15, np.uint16))
  assert small.shape == (report_page.TILE, report_page.TILE, 3)
  assert (small == 128).all()


def test_other_images_are_refused(file, tmp_path):
  with pytest.raises(BadInput, match='a/0.png, which is not among --images'):
    embedding_report.write(tmp_path / 'page.html', file, rows(
        ['x.png'], lambda mine: iter([])))
  assert not (tmp_path / 'page.html').exists()
