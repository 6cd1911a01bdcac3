"""A row for each image, in constant memory, and the same bytes after a kill."""

import json

import numpy as np
from PIL import Image
import pytest

import fedu_jax
from fedu_jax.data import optional_readers
from fedu_jax.encoders import embedding
from fedu_jax.encoders import embedding_files
from fedu_jax.encoders import image_rows
from fedu_jax.runtime.errors import BadInput
from tests.helpers import saved_run


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
  return fedu_jax.load(saved_run.make(tmp_path_factory.mktemp('runs') / 'run'))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Eleven images in three layouts, one of them damaged, and a text."""
  root = tmp_path_factory.mktemp('photos')
  draw = np.random.RandomState(0)
  for i in range(11):
    folder = root / ('', 'b', 'b/deep/er')[i % 3]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.randint(0, 256, (20, 17 + i, 3)).astype(
        np.uint8)).save(folder / f'{i:02}.png')
  (root / 'b' / 'bad.jpg').write_bytes(b'no image')
  (root / 'b' / 'notes.txt').write_text('')
  return root


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(embedding, '_PART', 4)


def rows_of(path):
  return embedding_files.Part(*(
      np.concatenate(x) for x in zip(*embedding_files.read(path))))


@pytest.mark.parametrize('suffix', embedding_files.FORMATS)
def test_each_file_has_a_row(suffix, encoder, photos, tmp_path):
  path = tmp_path / f'found{suffix}'
  rows = image_rows.of(str(photos), encoder.about)
  assert embedding.embed(encoder, rows, path) == (11, 1)
  found = rows_of(path)
  names = found.names.tolist()
  assert names[0] == '00.png' and 'b/deep/er/02.png' in names
  assert len(names) == 11 and names == sorted(names)
  assert set(found.clients) == {'', 'b'} and set(found.labels) == {-1}
  want = encoder([np.asarray(Image.open(photos / x)) for x in names])
  np.testing.assert_allclose(found.features, want, rtol=1e-5, atol=1e-6)
  said = json.loads((tmp_path / f'found{suffix}.skipped.json').read_text())
  assert len(said) == 1 and said[0].startswith('b/bad.jpg (no image of a kind')
  assert {x.name for x in tmp_path.iterdir()} == {
      path.name, f'{path.name}.skipped.json'}


@pytest.mark.parametrize('suffix', embedding_files.FORMATS)
def test_a_killed_process_goes_on_to_the_same_bytes(
    suffix, encoder, photos, tmp_path):
  """It dies in the second part; the first one is not computed again."""
  whole, path = (tmp_path / f'{x}{suffix}' for x in ('whole', 'killed'))
  rows = image_rows.of(str(photos), encoder.about)
  embedding.embed(encoder, rows, whole)
  read: list[range] = []

  def dies(mine):
    read.append(mine)
    if len(read) == 2:
      raise KeyboardInterrupt
    return rows.read(mine)
  with pytest.raises(KeyboardInterrupt):
    embedding.embed(encoder, rows._replace(read=dies), path)
  assert not path.exists()
  said: list[str] = []
  seen: list[tuple[int, int]] = []
  embedding.embed(encoder, rows._replace(read=dies), path,
                  lambda *x: seen.append(x), said.append)
  assert said == ['going on from an earlier start']
  assert seen[0] == (4, 12) and seen[-1] == (12, 12)
  assert read == [range(0, 4), range(4, 8), range(4, 8), range(8, 12)]
  assert path.read_bytes() == whole.read_bytes()


def test_other_images_or_another_encoder_begin_anew(encoder, photos, tmp_path):
  path = tmp_path / 'found.npz'
  rows = image_rows.of(str(photos), encoder.about)

  def stop(mine):
    if mine.start:
      raise KeyboardInterrupt
    return rows.read(mine)
  for state in ('old', 'new'):
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
      embedding.embed(encoder, rows._replace(read=stop, state=state), path,
                      say=said.append)
  assert said[0].endswith('beginning anew')


def test_a_changed_file_changes_the_state(encoder, tmp_path):
  pixels = np.zeros((4, 4, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  before = image_rows.of(str(tmp_path), encoder.about).state
  assert image_rows.of(str(tmp_path), encoder.about).state == before
  Image.fromarray(pixels + 1).save(tmp_path / 'a.png')
  assert image_rows.of(str(tmp_path), encoder.about).state != before


def test_arrays_have_labels_and_owners(encoder, tmp_path):
  draw = np.random.RandomState(0)
  images = draw.randint(0, 256, (6, 16, 16, 3)).astype(np.uint8)
  np.savez(tmp_path / 'data.npz', train_images=images[:4],
           train_labels=np.arange(4), owners=np.array([0, 1, 1, 0]),
           test_images=images[4:], test_labels=np.array([7, 9]))
  rows = image_rows.of(str(tmp_path / 'data.npz'), encoder.about)
  embedding.embed(encoder, rows, tmp_path / 'found.npz')
  found = rows_of(tmp_path / 'found.npz')
  assert found.names.tolist() == [
      'train/0', 'train/1', 'train/2', 'train/3', 'test/0', 'test/1']
  assert found.labels.tolist() == [0, 1, 2, 3, 7, 9]
  assert found.clients.tolist() == ['0', '1', '1', '0', '', '']
  np.testing.assert_allclose(found.features, encoder(images), rtol=1e-5,
                             atol=1e-6)


def test_what_is_refused(encoder, tmp_path):
  for images, complaint in (('/no/such', 'no such folder'),
                            (str(tmp_path), 'has no images'),
                            ('folder:/no/such', 'no such folder')):
    with pytest.raises(BadInput, match=complaint):
      image_rows.of(images, encoder.about)
  with pytest.raises(BadInput, match='must end in .parquet, .npz, .csv'):
    embedding_files.writer(tmp_path / 'a.txt')
  (tmp_path / 'bad.png').write_bytes(b'x')
  rows = image_rows.of(str(tmp_path), encoder.about)
  with pytest.raises(BadInput, match='none of the 1 images can be read'):
    embedding.embed(encoder, rows, tmp_path / 'found.csv')
  (tmp_path / 'a.csv').write_text('x,y\n')
  for name in ('a.csv', 'none.npz'):
    with pytest.raises(BadInput, match='not a readable file of embeddings'):
      list(embedding_files.read(tmp_path / name))


def test_a_depth_that_is_given_counts(encoder, tmp_path):
  """The largest value here would need 11 bits."""
  Image.fromarray(np.full((16, 16), 2000, np.uint16)).save(tmp_path / 'a.png')
  rows = image_rows.of(str(tmp_path), encoder.with_depth(12).about)
  assert next(rows.read(range(1)))[0, 0, 0] == 2000 >> 4


def test_deep_images_of_a_folder_share_a_depth(encoder, tmp_path):
  """The largest value of 12 bits sets it, so that a dark image stays dark."""
  for name, value in ('bright', 4095), ('dark', 1000):
    (tmp_path / 'site').mkdir(exist_ok=True)
    Image.fromarray(np.full((9, 9), value, np.uint16)).save(
        tmp_path / 'site' / f'{name}.png')
  rows = image_rows.of(str(tmp_path), encoder.about)
  bright, dark = rows.read(range(2))
  assert (bright == 255).all() and (dark == 1000 >> 4).all()


def test_a_damaged_part_is_embedded_again(encoder, photos, tmp_path):
  """A disk that lost the end of a part costs that part only."""
  whole, path = (tmp_path / f'{x}.npz' for x in ('whole', 'killed'))
  rows = image_rows.of(str(photos), encoder.about)
  embedding.embed(encoder, rows, whole)

  def dies(mine):
    if mine.start == 8:
      raise KeyboardInterrupt
    return rows.read(mine)
  with pytest.raises(KeyboardInterrupt):
    embedding.embed(encoder, rows._replace(read=dies), path)
  part, = tmp_path.glob('killed.npz.parts/*4.npz')
  part.write_bytes(part.read_bytes()[:-100])
  read: list[range] = []

  def counts(mine):
    read.append(mine)
    return rows.read(mine)
  embedding.embed(encoder, rows._replace(read=counts), path)
  assert read == [range(4, 8), range(8, 12)]
  assert path.read_bytes() == whole.read_bytes()


def test_what_is_passed_over_is_named(encoder, tmp_path, monkeypatch):
  """A list of an earlier file of the same name does not stay."""
  monkeypatch.setattr(optional_readers, '_is_installed', lambda module: False)
  site, path = tmp_path / 'site', tmp_path / 'found.csv'
  site.mkdir()
  Image.fromarray(np.zeros((4, 4), np.uint8)).save(site / 'a.png')
  (site / 'phone.HEIC').write_bytes(b'some')
  (site / 'gone.png').symlink_to(site / 'nowhere')
  (site / 'all').symlink_to(tmp_path)
  assert embedding.embed(encoder, image_rows.of(str(site), encoder.about),
                         path) == (1, 0)
  said = json.loads((tmp_path / 'found.csv.skipped.json').read_text())
  assert [x.split(' ')[0] for x in said] == ['all', 'gone.png', 'phone.HEIC']
  assert 'fedu_jax[heic]' in said[2]
  for each in (path, *list(site.iterdir())[:]):
    if each.name != 'a.png':
      each.unlink()
  embedding.embed(encoder, image_rows.of(str(site), encoder.about), path)
  assert not (tmp_path / 'found.csv.skipped.json').exists()
