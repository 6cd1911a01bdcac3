"""CIFAR is prepared without TensorFlow, from archives of the official layout.
"""

import functools
import hashlib
import http.server
import io
import sys
import tarfile
import threading

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from fedu_jax.data import cifar_without_tensorflow
from fedu_jax.data import sources
from fedu_jax.runtime import machine
from fedu_jax.runtime.errors import BadInput

FILES = {
    'cifar10': ('cifar-10-batches-bin', 1, 4, [
        f'data_batch_{i}.bin' for i in range(1, 6)], 'test_batch.bin',
                {'batches.meta.txt': 10}),
    'cifar100': ('cifar-100-binary', 2, 20, ['train.bin'], 'test.bin',
                 {'coarse_label_names.txt': 20, 'fine_label_names.txt': 100})}


def archive(root, name, damage=False):
  """Writes an archive with the official layout; returns its pixels."""
  prefix, num_labels, per_file, train, test, names = FILES[name]
  draw = np.random.RandomState(0)
  manual = root / 'downloads' / 'manual'
  manual.mkdir(parents=True)
  pixels, labels = [], []
  short = '10' if name == 'cifar10' else '100'
  with tarfile.open(manual / f'cifar-{short}-binary.tar.gz', 'w:gz') as tar:
    def add(file, content):
      info = tarfile.TarInfo(f'{prefix}/{file}')
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
    for file, count in names.items():
      add(file, ''.join(f'name{i}\n' for i in range(count)).encode())
    for file in [*train, test]:
      planes = draw.randint(0, 256, (per_file, 3, 32, 32)).astype(np.uint8)
      label = draw.randint(0, 10, (per_file, num_labels)).astype(np.uint8)
      rows = np.hstack([label, planes.reshape(per_file, -1)])
      add(file, rows.tobytes()[:-5 if damage else None])
      pixels.append(planes.transpose(0, 2, 3, 1))
      labels.append(label[:, -1])
  return pixels, labels


@pytest.mark.parametrize('name', list(FILES))
def test_prepares_reads_and_caches(tmp_path, name):
  pixels, labels = archive(tmp_path, name)
  data = sources.load(f'tfds:{name}', data_dir=str(tmp_path))
  np.testing.assert_array_equal(data.train_images, np.concatenate(pixels[:-1]))
  np.testing.assert_array_equal(data.train_labels, np.concatenate(labels[:-1]))
  np.testing.assert_array_equal(data.test_images, pixels[-1])
  np.testing.assert_array_equal(data.test_labels, labels[-1])
  assert 'tensorflow' not in sys.modules
  # Beside the data, and enough without the archive.
  assert len(list((tmp_path / name).rglob('.fedu_jax-*.npz'))) == 1
  (tmp_path / 'downloads' / 'manual').rename(tmp_path / 'gone')
  again = sources.load(f'tfds:{name}', data_dir=str(tmp_path))
  np.testing.assert_array_equal(again.train_images, data.train_images)


def test_what_we_prepare_is_what_tfds_reads(tmp_path):
  """TFDS's own builder opens it, with the same name, version and features."""
  import tensorflow_datasets as tfds
  pixels, _ = archive(tmp_path, 'cifar10')
  sources.load('tfds:cifar10', data_dir=str(tmp_path))
  builder = tfds.builder('cifar10', data_dir=str(tmp_path))
  row = builder.as_data_source('test')[0]
  number = int(row['id'].decode().removeprefix('test_'))
  np.testing.assert_array_equal(row['image'], pixels[-1][number])
  assert builder.info.features['label'].names[3] == 'name3'


def test_a_damaged_archive(tmp_path):
  archive(tmp_path, 'cifar10', damage=True)
  with pytest.raises(BadInput, match='damaged'):
    sources.load('tfds:cifar10', data_dir=str(tmp_path))
  assert not list(tmp_path.rglob('dataset_info.json'))  # nothing half made


def test_an_archive_that_is_cut_short(tmp_path):
  archive(tmp_path, 'cifar10')
  path, = tmp_path.rglob('*.tar.gz')
  path.write_bytes(path.read_bytes()[:20_000])
  with pytest.raises(BadInput, match='damaged or not the official'):
    sources.load('tfds:cifar10', data_dir=str(tmp_path))


def test_no_data_and_no_network(tmp_path, monkeypatch):
  """One line says what to do. The refused connection is simulated."""
  monkeypatch.setenv('HTTPS_PROXY', 'http://127.0.0.1:9')
  with pytest.raises(BadInput) as error:
    sources.load('tfds:cifar10', data_dir=str(tmp_path))
  message = str(error.value)
  assert '--config.data.dir' in message and 'cifar-10-binary.tar.gz' in message


@pytest.mark.parametrize('honest', [True, False])
def test_download_is_checksummed(tmp_path, monkeypatch, honest):
  """TFDS's download manager fetches from a local server, and checks the
  archive.
  """
  pixels, _ = archive(tmp_path / 'served', 'cifar10')
  path, = tmp_path.rglob('*.tar.gz')
  handler = functools.partial(http.server.SimpleHTTPRequestHandler,
                              directory=path.parent)
  handler.log_message = lambda *_: None
  digest = hashlib.sha256(path.read_bytes() + (b'' if honest else b'x'))
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/{path.name}'
    info = cifar_without_tensorflow.Cifar10(data_dir=str(tmp_path))._cifar_info
    monkeypatch.setattr(cifar_without_tensorflow.Cifar10, '_cifar_info',
                        info._replace(url=url))
    monkeypatch.setattr(cifar_without_tensorflow.Cifar10, 'url_infos', {
        url: checksums.UrlInfo(
            size=path.stat().st_size, checksum=digest.hexdigest(),
            filename=path.name)})
    if honest:
      data = sources.load('tfds:cifar10', data_dir=str(tmp_path))
      np.testing.assert_array_equal(data.test_images, pixels[-1])
    else:
      with pytest.raises(BadInput, match='NonMatchingChecksumError'):
        sources.load('tfds:cifar10', data_dir=str(tmp_path))
    server.shutdown()


def test_any_set_is_refused_at_once_without_a_network(monkeypatch, tmp_path):
  """TFDS itself would retry for minutes, and leave folders behind."""
  def refuse(url, **_):
    raise requests.ConnectionError(url)
  monkeypatch.setattr(requests, 'head', refuse)
  monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', None)
  with pytest.raises(BadInput, match='mnist is not prepared.*no connection to '
                     'https://storage.*--config.data.dir'):
    sources.load('tfds:mnist', data_dir=str(tmp_path / 'new'))
  assert not list(tmp_path.iterdir())


def test_without_a_home_tfds_needs_a_folder(monkeypatch):
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  monkeypatch.setattr(machine, 'home', lambda: None)
  with pytest.raises(BadInput, match='no home folder.*--config.data.dir'):
    sources.load('tfds:mnist')
