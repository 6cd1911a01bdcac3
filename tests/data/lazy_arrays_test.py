"""Lazy images are the same as images read at once, and read no other row."""

import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from fedu_jax.core import local_training
from fedu_jax.data import image_folders
from fedu_jax.data import lazy_arrays
from fedu_jax.data import sources
from fedu_jax.data import tfds_reader
from fedu_jax.runtime.errors import BadInput

DRAW = np.random.RandomState(0)
IMAGES = DRAW.randint(0, 256, (30, 6, 6, 3)).astype(np.uint8)
LABELS = np.repeat(np.arange(3), 10)  # in blocks
CIFAR10 = pathlib.Path(__file__).parents[3] / 'shared' / 'tfds'


def same(eager, late):
  """Checks both halves, whole and in pieces."""
  for a, b in zip(eager, late, strict=True):
    if isinstance(b, lazy_arrays.Lazy):
      assert (b.shape, b.dtype, len(b)) == (a.shape, a.dtype, len(a))
      np.testing.assert_array_equal(a, np.asarray(b))
      for rows in (np.array([7, 2, 2, 9]), slice(3, 5), 4, np.array([], int)):
        np.testing.assert_array_equal(a[rows], b[rows])
    else:
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('more', [
    {}, {'max_examples': 12}, {'image_size': 4, 'max_examples': 12}])
def test_npz(tmp_path, save, more):
  save(tmp_path / 'a.npz', y_train=LABELS, x_train=IMAGES[..., 0],
       x_test=IMAGES[::2, :, :, :1], y_test=LABELS[::2])
  source = f'npz:{tmp_path}/a.npz'
  late = sources.load(source, lazy=True, **more)
  assert isinstance(late.train_images, lazy_arrays.Lazy)
  assert isinstance(late.test_images, lazy_arrays.Lazy)
  same(sources.load(source, **more), late)


def test_bad_npz_is_refused_as_ever(tmp_path):
  np.savez(tmp_path / 'a.npz', train_images=IMAGES.astype(float))
  with pytest.raises(BadInput, match='float64'):
    sources.load(f'npz:{tmp_path}/a.npz', lazy=True)
  np.savez(tmp_path / 'b.npz', train_images=np.array([{}, 1], object))
  with pytest.raises(BadInput, match='plain'):
    sources.load(f'npz:{tmp_path}/b.npz', lazy=True)
  whole = tmp_path / 'a.npz'
  whole.write_bytes(whole.read_bytes()[:-100])
  with pytest.raises(BadInput, match='not a readable npz'):
    sources.load(f'npz:{whole}', lazy=True)


@pytest.fixture
def clients(tmp_path):
  for k in range(3):
    (tmp_path / 'data' / f'client{k}').mkdir(parents=True)
    for i in range(4):
      Image.fromarray(IMAGES[4 * k + i]).save(
          tmp_path / 'data' / f'client{k}' / f'{i}.png')
  return tmp_path / 'data'


def test_of_a_folder_only_own_clients_are_decoded(clients, monkeypatch):
  """It reads as a host that holds client 1."""
  opened = []
  decode = image_folders.decode
  monkeypatch.setattr(image_folders, 'decode', lambda path, *how: (
      opened.append(path.parent.name), decode(path, *how))[1])
  data = sources.load(f'folder:{clients}', image_size=6, lazy=True)
  assert not opened and not list(clients.glob('.fedu_jax*'))
  parts = [np.flatnonzero(data.owners == k) for k in range(3)]
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  arrays = local_training.client_arrays(data.train_images, parts[1:2], sharding)
  assert opened == ['client1'] * 4
  np.testing.assert_array_equal(arrays.images[0], IMAGES[4:8])


def test_what_an_earlier_start_has_cached_is_mapped(clients, monkeypatch):
  eager = sources.load(f'folder:{clients}', image_size=6)
  # Nothing is decoded.
  monkeypatch.setattr(image_folders, 'decode', lambda *_: 1 / 0)
  late = sources.load(f'folder:{clients}', image_size=6, lazy=True)
  assert late.owner_names == eager.owner_names
  same(eager[:1], late[:1])
  np.testing.assert_array_equal(eager.owners, late.owners)


@pytest.mark.skipif(not CIFAR10.exists(), reason='needs the real CIFAR-10 in '
                    'TFDS format, beside the checkout in shared/tfds')
def test_of_tfds_only_wanted_rows_are_decoded(monkeypatch):
  """Real CIFAR-10: all labels are read, and a hundred images."""
  eager = sources.load('tfds:cifar10', data_dir=str(CIFAR10))
  decoded = []
  fit = tfds_reader._image
  monkeypatch.setattr(tfds_reader, '_image', lambda builder, image, size: (
      decoded.append(1), fit(builder, image, size))[1])
  data = tfds_reader.read(tfds_reader.find('cifar10', str(CIFAR10)), 0, True)
  before = len(decoded)
  rows = np.arange(0, 50_000, 500)
  np.testing.assert_array_equal(data[0][rows], eager.train_images[rows])
  assert before <= 4 and len(decoded) - before <= len(rows) + 1
  np.testing.assert_array_equal(data[1], eager.train_labels)
  np.testing.assert_array_equal(data[3], eager.test_labels)
