"""All sources, from files that the tests make; the cache; bad input."""

import pathlib
import sys

import numpy as np
from PIL import Image
import pytest

from configs import smoke
from fedu_jax.data import image_folders
from fedu_jax.data import reading_report
from fedu_jax.data import sources
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import prepare
from fedu_jax.training.config import checks

CIFAR10 = pathlib.Path(__file__).parents[3] / 'shared' / 'tfds'


def test_digits():
  data = sources.load('digits')
  assert data.train_images.shape == (1438, 8, 8, 3)
  assert data.test_images.shape == (359, 8, 8, 3)
  assert data.train_images.dtype == np.uint8 and data.train_images.max() == 255
  assert set(data.train_labels) == set(data.test_labels) == set(range(10))
  assert (data.train_images[..., 0] == data.train_images[..., 2]).all()


def test_max_examples_keeps_the_first_of_each_class_evenly():
  data, full = sources.load('digits', max_examples=55), sources.load('digits')
  counts = np.bincount(data.train_labels)
  assert sorted(counts) == [5] * 5 + [6] * 5
  first = np.flatnonzero(full.train_labels == 3)[:5]
  mine = data.train_images[data.train_labels == 3][:5]
  np.testing.assert_array_equal(mine, full.train_images[first])
  assert len(data.test_images) == 359  # the test half is whole
  with pytest.raises(BadInput, match='max_examples is 2000.*1438'):
    sources.load('digits', max_examples=2000)


def test_image_size_resizes_as_pil_does():
  data, full = sources.load('digits', image_size=12), sources.load('digits')
  assert data.train_images.shape[1:] == (12, 12, 3)
  assert data.test_images.shape[1:] == (12, 12, 3)
  want = Image.fromarray(full.train_images[7]).resize(
      (12, 12), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(data.train_images[7], np.asarray(want))


@pytest.mark.parametrize('source', [
    'digit', 'digits:x', 'npz', 'npz:', 'tfds:', 'folder:', '', 'http:x'])
def test_unknown_sources_are_refused(source):
  with pytest.raises(BadInput, match='use digits, tfds:'):
    sources.load(source)


# --- npz -------------------------------------------------------------------


def save(path, **arrays):
  np.savez(path, **arrays)
  return f'npz:{path}'


@pytest.mark.parametrize('names', [
    ('train_images', 'train_labels', 'test_images', 'test_labels'),
    ('x_train', 'y_train', 'x_test', 'y_test')])
def test_npz(tmp_path, names):
  arrays = (np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4),
            np.array([[0], [1], [0], [1], [2]]), np.zeros((2, 4, 4, 1), 'u1'),
            np.array([0, 1], np.uint8))
  data = sources.load(save(tmp_path / 'a.npz', **dict(zip(names, arrays))))
  assert data.train_images.shape == (5, 4, 4, 3)
  assert data.test_images.shape == (2, 4, 4, 3)
  np.testing.assert_array_equal(data.train_images[..., 1], arrays[0])
  np.testing.assert_array_equal(data.train_labels, [0, 1, 0, 1, 2])
  assert data.train_labels.dtype == data.test_labels.dtype == np.int32


IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize('arrays, complaint', [
    (dict(pictures=IMAGES), 'no train_images'),
    (dict(train_images=IMAGES.astype(float)), 'float64'),
    (dict(train_images=IMAGES[0, 0]), 'must be uint8 or'),
    (dict(train_images=np.zeros((3, 4, 4, 2), np.uint8)), 'must be uint8 or'),
    (dict(train_images=IMAGES[:0]), 'must be uint8 or'),
    (dict(train_images=IMAGES[0]), 'may be one image in colour'),
    (dict(train_images=IMAGES, train_labels=np.zeros(2, int)), '3 integers'),
    (dict(train_images=IMAGES, train_labels=np.zeros(3)), '3 integers'),
    (dict(train_images=IMAGES, train_labels=np.full(3, -1)), 'from 0'),
    (dict(train_images=IMAGES, test_images=IMAGES[:, :2, :2]),
     'differ in size'),
    (dict(train_images=np.array([{}, 1], object)), 'plain arrays')])
def test_bad_npz(tmp_path, arrays, complaint):
  with pytest.raises(BadInput, match=complaint):
    sources.load(save(tmp_path / 'a.npz', **arrays))


def test_what_of_an_npz_is_not_read_is_told(tmp_path):
  data = sources.load(save(tmp_path / 'a.npz', train_images=IMAGES,
                           owner=np.arange(3), val_images=IMAGES))
  assert data.owners is None
  assert reading_report.skipped_lines(data.skipped) == [
      'data: not read: owner (not a name of an array that is read), val_images '
      '(not a name of an array that is read); skipped.json names each']
  assert not sources.load(save(tmp_path / 'b.npz', train_images=IMAGES)).skipped


def test_npz_that_is_absent_or_something_else(tmp_path):
  with pytest.raises(BadInput, match='no file'):
    sources.load(f'npz:{tmp_path}/a.npz')
  for content in (b'', b'hello', b'PK\x03\x04 cut short'):
    (tmp_path / 'b.npz').write_bytes(content)
    with pytest.raises(BadInput, match='b.npz'):
      sources.load(f'npz:{tmp_path}/b.npz')


# --- owners ----------------------------------------------------------------


def test_an_npz_names_the_owners_of_labelled_images(tmp_path):
  """The rows of an owner need not be next to each other."""
  owners = np.array([2, 0, 1, 0, 2, 2])
  source = save(tmp_path / 'a.npz', train_images=np.zeros((6, 4, 4), 'u1'),
                train_labels=np.arange(6) % 2, owners=owners[:, None],
                owner_names=np.array(['ann', 'bob', 'e\nve']))
  for lazy in (False, True):
    data = sources.load(source, lazy=lazy)
    assert data.owners.tolist() == owners.tolist()
    assert data.owners.dtype == np.int32
    assert data.owner_names == ('ann', 'bob', 'e?ve')
    assert data.train_labels.tolist() == [0, 1] * 3
  config = smoke.get_config()
  config.data.update(source=source, max_examples=0)
  config.update(clients=3, batch_size=2)
  config.partition.name = 'natural'
  checks.check(config)
  with pytest.raises(BadInput, match='client 1 has 1 images'):
    prepare.parts_of(config, data)
  np.savez(tmp_path / 'b.npz', train_images=np.zeros((6, 4, 4), 'u1'))
  config.data.source = f'npz:{tmp_path}/b.npz'
  with pytest.raises(BadInput, match='natural needs owners.*name=iid'):
    prepare.parts_of(config, prepare.data_of(config))
  config.partition.name = 'by_class'
  with pytest.raises(BadInput, match='by_class needs labels.*name=iid'):
    prepare.parts_of(config, prepare.data_of(config))


@pytest.mark.parametrize('arrays, complaint', [
    (dict(owners=np.zeros(2, int)), 'owners in .* must be 3 integers'),
    (dict(owners=np.zeros(3)), 'must be 3 integers'),
    (dict(owners=np.array(['a', 'b', 'c'])), 'must be 3 integers'),
    (dict(owners=np.array([-1, 0, 1])), 'go from -1 to 1'),
    (dict(owners=np.array([0, 1, 2**40])), 'below 1,000,000'),
    (dict(owners=np.array([0, 2, 2])), 'owner 1 has no image'),
    (dict(owner_names=np.array(['a'])), 'must be 0 texts'),
    (dict(owners=np.arange(3), owner_names=np.array(['a', 'b'])),
     'must be 3 texts'),
    (dict(owners=np.arange(3), owner_names=np.arange(3)), 'must be 3 texts')])
def test_bad_owners(tmp_path, arrays, complaint):
  with pytest.raises(BadInput, match=complaint):
    sources.load(save(tmp_path / 'a.npz', train_images=IMAGES, **arrays))


def test_max_examples_are_even_over_owners_and_then_classes(tmp_path):
  """Owner 1 has two classes, in blocks; owner 0 has one."""
  owners = np.repeat([0, 1], [20, 30])
  labels = np.repeat([0, 1, 2], [20, 20, 10])
  data = sources.load(save(
      tmp_path / 'a.npz', owners=owners, train_labels=labels,
      train_images=np.arange(50, dtype=np.uint8)[:, None, None] * np.ones(
          (1, 2, 2), np.uint8)), max_examples=12)
  assert np.bincount(data.owners).tolist() == [6, 6]
  assert np.bincount(data.train_labels).tolist() == [6, 3, 3]
  assert data.train_images[:, 0, 0, 0].tolist() == [
      *range(6), *range(20, 23), *range(40, 43)]


# --- a researcher's own ----------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
  """Makes a module of functions of several kinds, right and wrong."""
  (tmp_path / 'own_data.py').write_text('''
import numpy as np
from fedu_jax import dataset

def arrays(count=6):
  return {'train_images': np.full((count, 4, 4), 7, np.uint8),
          'train_labels': list(range(count)), 'owners': np.arange(count) % 2,
          'owner_names': ['ann', 'bob'], 'test_images': None}

def plain():
  return arrays()

def chosen(*, count, image_size, dir='', lazy=False):
  assert (image_size, dir, lazy) == (4, '/there', True)
  return dataset.Dataset(**dataset.checked({
      'train_images': arrays(count)['train_images']}, 'x', 'own')._asdict())

def fails(): return 1 / 0
def nothing(): return None
def bare(): return {'train_labels': [1]}
def more(): return arrays() | {'weights': np.ones(6)}
def floats(): return arrays() | {'train_images': np.ones((6, 4, 4))}
def few(): return arrays() | {'train_labels': [1, 2]}
def ragged(): return arrays() | {'owners': [[1], [2, 3]]}
def needs(path): return arrays()
def leaves(): raise SystemExit(3)
number = 3
''')
  monkeypatch.syspath_prepend(tmp_path)
  yield 'own_data'
  sys.modules.pop('own_data', None)


def test_a_researchers_own_source(own):
  data = sources.load(f'{own}:plain', image_size=8, max_examples=4)
  assert data.train_images.shape == (4, 8, 8, 3)
  assert data.train_images.min() == data.train_images.max() == 7
  assert np.bincount(data.owners).tolist() == [2, 2]
  assert data.train_labels.dtype == np.int32
  assert data.owner_names == ('ann', 'bob') and data.test_images is None


def test_its_keyword_arguments_are_fields_of_data(own):
  config = smoke.get_config()
  config.data.update(source=f'{own}:chosen', dir='/there', image_size=4,
                     max_examples=0)
  config.partition.name = 'iid'
  with pytest.raises(BadInput, match='needs a field config.data.count'):
    checks.check(config)
  config.data.count = 5
  checks.check(config)
  assert len(prepare.data_of(config, lazy=True).train_images) == 5
  config.data.cuont = 5
  with pytest.raises(BadInput, match="unknown config field 'data.cuont'"):
    checks.check(config)
  # What is known by its kind is never a module.
  assert sources.function('npz:chosen') is None
  assert sources.absolute(f'{own}:chosen') == f'{own}:chosen'


@pytest.mark.parametrize('name, complaint', [
    ('fails', 'ZeroDivisionError'), ('leaves', 'SystemExit'),
    ('nothing', 'no mapping'),
    ('bare', 'returned no train_images'), ('more', 'returned weights'),
    ('floats', 'is float64'), ('few', 'must be 6 integers'),
    ('ragged', 'no mapping of arrays'), ('needs', 'argument path'),
    ('number', 'cannot be imported'), ('absent', 'cannot be imported')])
def test_what_is_wrong_with_it_is_one_line(own, name, complaint):
  with pytest.raises(BadInput, match=complaint) as refused:
    sources.load(f'{own}:{name}')
  assert '\n' not in str(refused.value)


# --- folders ---------------------------------------------------------------


@pytest.fixture
def clients(tmp_path):
  """Makes three clients with images of many formats, modes and sizes."""
  root = tmp_path / 'clients'
  draw = np.random.RandomState(0)
  kinds = [('png', 'RGB'), ('jpg', 'L'), ('bmp', 'RGB'), ('gif', 'P'),
           ('png', 'RGBA'), ('webp', 'RGB'), ('tiff', 'RGB'), ('JPEG', 'CMYK')]
  for k, count in enumerate((2, 3, 8)):
    (root / f'client{k}').mkdir(parents=True)
    for i in range(count):
      ending, mode = kinds[i]
      size = (20 + 7 * i, 15 + 3 * k)
      pixels = draw.randint(0, 256, (*size[::-1], 3)).astype(np.uint8)
      Image.fromarray(pixels).convert(mode).save(
          root / f'client{k}' / f'{i}.{ending}')
  (root / 'client0' / 'notes.txt').write_text('not an image')
  (root / '.hidden').mkdir()
  return root


def test_folder(clients):
  data = sources.load(f'folder:{clients}', image_size=10)
  assert data.train_images.shape == (13, 10, 10, 3)
  assert data.owners.tolist() == [0] * 2 + [1] * 3 + [2] * 8
  assert data.owner_names == ('client0', 'client1', 'client2')
  assert data.train_labels is None and data.test_images is None
  # A wide image is cropped to its middle, not squashed.
  with Image.open(clients / 'client0' / '0.png') as image:
    middle = image.crop((2.5, 0, 17.5, 15))
    want = np.asarray(middle.resize((10, 10), Image.Resampling.BILINEAR))
  got = data.train_images[0].astype(int)
  assert np.abs(got - want).mean() < 12  # half a pixel's difference in the crop


def test_a_photograph_is_turned_upright(tmp_path):
  (tmp_path / 'a').mkdir()
  pixels = np.zeros((8, 8, 3), np.uint8)
  pixels[:4] = 255
  exif = Image.Exif()
  exif[0x0112] = 3  # upside down
  Image.fromarray(pixels).save(tmp_path / 'a' / '0.png', exif=exif)
  data = sources.load(f'folder:{tmp_path}', image_size=8)
  assert data.train_images[0, -1].min() == 255
  assert data.train_images[0, 0].max() == 0


def test_sixteen_bits_keep_their_shades(tmp_path):
  (tmp_path / 'a').mkdir()
  ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
  Image.fromarray(ramp).save(tmp_path / 'a' / '0.png')
  data = sources.load(f'folder:{tmp_path}', image_size=8)
  np.testing.assert_array_equal(data.train_images[0, ..., 1], ramp >> 8)


@pytest.mark.parametrize('content, reason', [
    (b'', 'empty'), (b'hello', 'no image of a kind'), (None, 'truncated')])
def test_an_unreadable_image_is_skipped_and_named(clients, content, reason):
  whole = sources.load(f'folder:{clients}')
  path = clients / 'client1' / '1.jpg'
  png = (clients / 'client0' / '0.png').read_bytes()
  path.write_bytes(png[:len(png) // 2] if content is None else content)
  for _ in range(2):  # read, and then from the cache next to the data
    data = sources.load(f'folder:{clients}')
    assert data.owners.tolist() == [0] * 2 + [1] * 2 + [2] * 8
    np.testing.assert_array_equal(
        data.train_images, np.delete(whole.train_images, 3, 0))
    line, = data.files.damaged
    assert line.startswith('client1/1.jpg (') and reason in line
  # Hosts that read their own clients only could not agree on it.
  with pytest.raises(BadInput, match='client1/1.jpg.*several hosts skip none'):
    np.asarray(sources.load(f'folder:{clients}', lazy=True).train_images)


def test_an_image_of_too_many_pixels_is_skipped_in_plain_words(clients):
  Image.new('1', (15_000, 12_000)).save(clients / 'client0' / '9.png')
  line, = sources.load(f'folder:{clients}').files.damaged
  assert line == 'client0/9.png (more than 178,956,970 pixels)'


def test_a_client_without_a_readable_image_is_refused(clients):
  for path in (clients / 'client1').iterdir():
    path.write_bytes(b'')
  with pytest.raises(BadInput, match='none of the 3.*client1.*(empty)'):
    sources.load(f'folder:{clients}')


def test_empty_folders(tmp_path):
  with pytest.raises(BadInput, match='no folder'):
    sources.load(f'folder:{tmp_path}/nowhere')
  with pytest.raises(BadInput, match='no folders'):
    sources.load(f'folder:{tmp_path}')
  (tmp_path / 'a').mkdir()
  with pytest.raises(BadInput, match='a has no images'):
    sources.load(f'folder:{tmp_path}')


# --- the cache -------------------------------------------------------------


def cached(root):
  return sorted(root.glob('.fedu_jax-*'))


def test_decoding_happens_once(clients, monkeypatch):
  first = sources.load(f'folder:{clients}')
  assert len(cached(clients)) == 1
  monkeypatch.setattr(image_folders, 'decode', lambda *_: 1 / 0)
  again = sources.load(f'folder:{clients}')
  np.testing.assert_array_equal(first.train_images, again.train_images)
  assert again.owner_names == first.owner_names


def test_a_changed_folder_is_decoded_again(clients):
  sources.load(f'folder:{clients}')
  Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(
      clients / 'client0' / '0.png')
  data = sources.load(f'folder:{clients}')
  assert (data.train_images[0] == 7).all()


def test_a_damaged_cache_is_made_again(clients):
  first = sources.load(f'folder:{clients}')
  path, = cached(clients)
  for content in (b'', b'junk', path.read_bytes()[:100]):
    path.write_bytes(content)
    again = sources.load(f'folder:{clients}')
    np.testing.assert_array_equal(first.train_images, again.train_images)


def test_a_folder_that_may_not_be_written_is_left_alone(
    clients, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  clients.chmod(0o555)
  sources.load(f'folder:{clients}')
  clients.chmod(0o755)
  assert not cached(clients)
  assert len(list((tmp_path / 'cache').rglob('.fedu_jax-*.npy'))) == 1


# --- TFDS ------------------------------------------------------------------


def test_tfds_that_is_unknown_or_unreachable(tmp_path):
  with pytest.raises(BadInput, match='cannot find'):
    sources.load('tfds:no_such_set', data_dir=str(tmp_path))
  with pytest.raises(BadInput, match='outside TFDS, whose code'):
    sources.load('tfds:huggingface:mnist', data_dir=str(tmp_path))


@pytest.mark.skipif(not CIFAR10.is_dir(), reason='needs the real CIFAR-10 in '
                    'TFDS format, beside the checkout in shared/tfds')
def test_the_real_cifar10(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  data = sources.load('tfds:cifar10', data_dir=str(CIFAR10), image_size=16)
  assert data.train_images.shape == (50_000, 16, 16, 3)
  assert np.bincount(data.train_labels).tolist() == [5000] * 10
  assert np.bincount(data.test_labels).tolist() == [1000] * 10
  # Ordered by id, whatever the order on disk: read again, row by row.
  import tensorflow_datasets as tfds
  source = tfds.builder('cifar10', data_dir=str(CIFAR10)).as_data_source('test')
  for row in (source[0], source[1234]):
    number = int(row['id'].decode().removeprefix('test_'))
    want = Image.fromarray(row['image']).resize(
        (16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.test_images[number], np.asarray(want))
    assert data.test_labels[number] == row['label']
  assert 'tensorflow' not in sys.modules
