"""Tests of the page to look at embeddings."""

import base64
import io
import json
import re

import numpy as np
from PIL import Image
import pytest

from fedu_jax.encoders import report_page
from fedu_jax.runtime.errors import BadInput

COUNT = 45


def thumbnail(row):
  """A colour for each row."""
  return np.full((report_page.TILE,) * 2 + (3,), [5 * row, 255 - 5 * row, 0],
                 np.uint8)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """The page of 45 images of three clients, one name an attack."""
  names = [f'site {i % 3}/{i}.png' for i in range(COUNT)]
  names[0] = '</script><img src=x onerror=alert(1)>.png'
  path = tmp_path_factory.mktemp('page') / 'page.html'
  features = np.random.RandomState(0).randn(COUNT, 12).astype(np.float32)
  features[1] = features[0]
  report_page.write(path, report_page.Shown(
      'Embeddings', 'a note', names, features,
      {'client': [f'site {i % 3}' for i in range(COUNT)],
       'label': [f'{i:02}' for i in range(COUNT)]}),
                    map(thumbnail, range(COUNT)))
  return path.read_text()


@pytest.fixture(scope='module')
def data(page):
  return json.loads(re.search('const data = (.*?), tile = ', page)[1])


def numbers(text, dtype):
  return np.frombuffer(base64.b64decode(text), dtype)


def test_the_page_needs_nothing_else(page):
  """It asks no server and no other file, and a name is no markup."""
  markup = page.replace('&lt;img src=x', '').replace('\\u003cimg src=x', '')
  assert not re.search(r'(src|href)\s*=|@import|https?://', markup)
  assert page.count('url(') == page.count('url(data:image/jpeg;base64,') == 1
  assert '<img' not in page and page.count('</script>') == 1


def test_all_images_are_on_the_map(data):
  places = numbers(data['map'], '<u2').reshape(-1, 2)
  assert len(places) == len(data['names']) == COUNT
  assert (places.min(0) == 0).all() and (places.max(0) == 65535).all()


def test_groups_are_numbered_by_size(data):
  """The first dozen has colours of its own; names stay exact."""
  client, label = data['groups']['client'], data['groups']['label']
  assert client['legend'] == [f'site {i} (15)' for i in range(3)]
  assert numbers(client['of'], 'u1').tolist() == [i % 3 for i in range(COUNT)]
  assert len(label['legend']) == 12 and label['legend'][-1] == '34 others (34)'
  assert numbers(label['of'], 'u1').max() == 11
  assert [label['names'][i] for i in numbers(label['exact'], '<u4')] == [
      f'{i:02}' for i in range(COUNT)]


def test_each_image_has_its_thumbnail(page):
  """A position on the sheet shows the image of that row."""
  sheet = re.search(r's0 \{ .*?image/jpeg;base64,(.*?)\)', page)[1]
  sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))))
  found = re.findall(r'<figure title="(?:site \d/)(\d+).png"><i style="'
                     r'background-position:-(\d+)px -(\d+)px"', page)
  assert len(found) > 50 and {int(row) for row, *_ in found} > {7, 44}
  for row, x, y in found:
    pixel = sheet[int(y) + 20, int(x) + 20].astype(int)
    assert np.abs(pixel - thumbnail(int(row))[0, 0]).max() < 12, row


def test_equal_images_are_duplicates(page):
  part = page[page.index('Near-duplicates'):page.index('Farthest')]
  assert part.count('class="pair"') == 1 and '1.0000' in part


def test_a_large_set_is_thinned():
  assert report_page.rows(7).tolist() == list(range(7))
  few = report_page.rows(10**6)
  assert len(few) == report_page.MOST and few[-1] == 10**6 - 1


def test_nothing_to_show_is_refused(tmp_path):
  with pytest.raises(BadInput, match='there is none'):
    report_page.write(tmp_path / 'x.html', report_page.Shown(
        '', '', [], np.zeros((0, 3), np.float32), {}), [])
  assert not list(tmp_path.iterdir())
