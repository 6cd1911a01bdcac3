"""Prepares CIFAR-10 and CIFAR-100 as TFDS data sets without TensorFlow.

TFDS's own builders need TensorFlow to encode an image and to write TFRecord.
The builders here inherit from them: features, version, official archive and
checksum. They pass PNG bytes to TFDS, which stores them unchanged in
array_record. Every program that reads TFDS's CIFAR can read the result.
"""

import io
import os
import pathlib
import tarfile
import zlib

import numpy as np
from PIL import Image
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import cifar as tfds_cifar

from fedu_jax.runtime import private_apis
from fedu_jax.runtime.errors import BadInput

_PIXELS = 3 * 32 * 32


def _png(pixels: np.ndarray) -> bytes:
  """Encodes one planar image [3 * 32 * 32] u8 as PNG."""
  buffer = io.BytesIO()
  Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0)).save(
      buffer, 'PNG')
  return buffer.getvalue()


class _WithoutTensorFlow(  # type: ignore[call-arg]
    tfds_cifar.Cifar10, skip_registration=True):
  """Replaces the steps of TFDS's builders that unpack, read and encode."""

  def _split_generators(self, dl_manager):
    archive = _archive(self)
    info = private_apis.cifar_info(self)
    if not archive.exists():
      _reach(info.url, dl_manager.download_dir)
      archive = dl_manager.download(info.url)
    try:
      # Members are read inside the archive; nothing is unpacked to disk.
      with tarfile.open(archive) as tar:
        def read(file):
          member = tar.extractfile(info.prefix + file)
          if member is None:
            raise KeyError(f'{file} is not a file')
          return member.read()
        for key, file in zip(info.label_keys, info.label_files):
          self.info.features[key].names = read(file).decode().split()
        train, test = ([(file, read(file)) for file in files]
                       for files in (info.train_files, info.test_files))
    except (KeyError, EOFError, OSError, tarfile.TarError, zlib.error) as error:
      raise BadInput(f'{archive} is damaged or not the official archive '
                     f'({error}): fetch it again') from error
    return {'train': self._generate_examples('train_', train),
            'test': self._generate_examples('test_', test)}

  def _generate_examples(self, split_prefix, files):
    keys = private_apis.cifar_info(self).label_keys
    index = 0
    for file, content in files:
      data = np.frombuffer(content, np.uint8)
      if not data.size or data.size % (len(keys) + _PIXELS):
        raise BadInput(f'{file} in the archive has {data.size} bytes, not a '
                       'whole number of images: the archive is damaged; fetch '
                       'it again')
      for row in data.reshape(-1, len(keys) + _PIXELS):
        labels = dict(zip(keys, map(int, row)))
        yield index, {**labels, 'id': f'{split_prefix}{index:05d}',
                      'image': _png(row[len(keys):])}
        index += 1


class Cifar10(  # type: ignore[call-arg]
    _WithoutTensorFlow, skip_registration=True):
  """CIFAR-10 with the features and files of TFDS's `cifar10`."""
  name = 'cifar10'


class Cifar100(  # type: ignore[call-arg]
    _WithoutTensorFlow, tfds_cifar.Cifar100, skip_registration=True):
  """CIFAR-100 with the features and files of TFDS's `cifar100`."""
  name = 'cifar100'


BUILDERS = {'cifar10': Cifar10, 'cifar100': Cifar100}


def _root(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
  """TFDS's root: the data is in root/name/version."""
  return pathlib.Path(builder.data_path).parents[1]


def _archive(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
  """The path where a user may put the official archive, as in TFDS."""
  file = os.path.basename(private_apis.cifar_info(builder).url)
  return _root(builder) / 'downloads' / 'manual' / file


def _reach(url: str, downloads: pathlib.Path) -> None:
  """Fails at once without a network, where TFDS would retry for minutes."""
  kept = os.path.basename(url).split('.')[0]
  if not any(kept in path.name for path in downloads.glob('*')):
    reach(url)


def reach(url: str) -> None:
  """Fails within seconds if no server answers at a URL.

  Raises:
    ConnectionError: no server answers.
  """
  try:
    requests.head(url, timeout=10)
  except requests.RequestException as error:
    raise ConnectionError(f'no connection to {url}') from error


def prepare(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
  """Downloads, checks and converts a data set, unless it is prepared.

  Args:
    name: 'cifar10' or 'cifar100'.
    data_dir: TFDS's root; None for its default. The official archive is read
      from `<data_dir>/downloads/manual/` if it is there.

  Returns:
    The prepared builder.

  Raises:
    BadInput: there is neither data nor archive, and the download failed.
  """
  builder = BUILDERS[name](data_dir=data_dir, file_format='array_record')
  if builder.is_prepared():
    return builder
  try:
    builder.download_and_prepare()
  except BadInput:
    raise
  except Exception as error:
    # TFDS wraps the errors of its downloader, the disk and the archive.
    reason = ' '.join(str(error).split())[:200]
    raise BadInput(
        f'{name} is not in {_root(builder)} and could not be '
        f'downloaded or prepared ({type(error).__name__}: {reason}): name a '
        f'folder that has it with --config.data.dir, or put the official '
        f'archive at {_archive(builder)}') from error
  return builder
