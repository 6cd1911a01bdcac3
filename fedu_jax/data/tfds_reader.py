"""Reads TFDS classification sets by `as_data_source`, without TensorFlow."""

from collections.abc import Iterator
import contextlib
import math
import os
import pathlib

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from fedu_jax.data import cifar_without_tensorflow
from fedu_jax.data import decoded_cache
from fedu_jax.data.lazy_arrays import Images, Lazy
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import machine
from fedu_jax.runtime.errors import BadInput


def find(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
  """Returns the builder of a data set; prepares the data set if needed.

  Args:
    name: TFDS's name, with '/config' if it has one.
    data_dir: TFDS's root; '' for its default.

  Raises:
    BadInput: TFDS does not know the data set, or it is not stored as
      array_record and cannot be prepared.
  """
  root = data_dir or None
  if not root and 'TFDS_DATA_DIR' not in os.environ and not machine.home():
    raise BadInput(f'data.source tfds: {name} is in ~/tensorflow_datasets by '
                   'default, and this user has no home folder: name its folder '
                   'with --config.data.dir')
  if ':' in name:
    raise BadInput(f'data.source tfds: {name!r} is of a register outside TFDS, '
                   'whose code would be loaded: name one of its own sets')
  try:
    builder = tfds.builder(name, data_dir=root)
    if not builder.is_prepared():
      builder = tfds.builder(name, data_dir=root, file_format='array_record')
  except Exception as error:
    raise BadInput(f'data.source tfds: cannot find {name!r} '
                   f'({_reason(error)})') from error
  if builder.is_prepared():
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
      raise BadInput(
          f'data.source tfds: {name} in {builder.data_path} is stored as '
          f'{builder.info.file_format.value}, which needs TensorFlow to read: '
          "prepare it with file_format='array_record'")
    return builder
  if name in cifar_without_tensorflow.BUILDERS:
    return cifar_without_tensorflow.prepare(name, root)
  try:
    _reach(builder)
    builder.download_and_prepare(
        file_format='array_record',
        download_config=tfds.download.DownloadConfig(
            force_checksums_validation=True))
  except Exception as error:
    raise BadInput(
        f'data.source tfds: {name} is not prepared in {builder.data_path} and '
        f'could not be ({_reason(error)}): prepare it as '
        'array_record where TensorFlow and the network are at hand, and name '
        'its folder with --config.data.dir') from error
  return builder


def state_of(builder: tfds.core.DatasetBuilder) -> str:
  """Returns a text that changes when a file of a data set changes.

  Raises:
    BadInput: the folder of the data set cannot be read.
  """
  folder = pathlib.Path(builder.data_path)
  try:
    return decoded_cache.state_of(sorted(
        path for path in folder.resolve().iterdir()
        if path.is_file() and not path.name.startswith('.')))
  except OSError as error:
    raise BadInput(f'data.source tfds: {folder} cannot be read '
                   f'({error.strerror}): make it readable') from error


def read(builder: tfds.core.DatasetBuilder, image_size: int, lazy: bool = False
         ) -> tuple[Images, np.ndarray, Images, np.ndarray]:
  """Decodes the train and the test split, each sorted by id.

  A data set without ids keeps the order on disk, which is stable too. The split
  'validation' replaces 'test' if that is absent or has no labels.

  Args:
    builder: the builder of a prepared data set with one image and one label.
    image_size: pixels of a side; 0 keeps the size of the images, which must
      then be the same.
    lazy: whether images are decoded only when they are indexed. Ids and labels
      are always read at once.

  Returns:
    Training images [N, H, W, 3] u8, training labels [N], and the same for test.

  Raises:
    BadInput: it is no set of images with labels, or a file is damaged.
  """
  features = builder.info.features
  keys = builder.info.supervised_keys
  if not keys or not isinstance(features[keys[0]], tfds.features.Image):
    raise BadInput(f'data.source tfds: {builder.name} is not a set of images '
                   'with labels')
  splits = builder.info.splits
  if not splits:
    raise BadInput(f'data.source tfds: {builder.name} in {builder.data_path} '
                   'has no splits, as without its dataset_info.json: prepare '
                   'it again')
  tests = [s for s in ('test', 'validation') if s in splits]
  if 'train' not in splits or not tests:
    raise BadInput(f'data.source tfds: {builder.name} has the splits '
                   f'{", ".join(splits)}; train and test are needed')
  test = tests[0]
  if tests[1:] and _is_unlabelled(builder, test, keys):
    test = tests[1]
  return (*_split(builder, 'train', keys, image_size, lazy),
          *_split(builder, test, keys, image_size, lazy))


def _reach(builder: tfds.core.DatasetBuilder) -> None:
  """Fails at once if a server that is needed for a download is unreachable.

  TFDS would retry for minutes, and create folders.

  Raises:
    ConnectionError: a server does not answer.
  """
  # The data are in root/name/version, or root/name/config/version.
  data = pathlib.Path(builder.data_path).expanduser()
  downloads = data.parents[builder.info.full_name.count('/')] / 'downloads'
  servers: dict[str, str] = {}
  for url, info in (builder.url_infos or {}).items():
    if not (downloads / resource.get_dl_fname(url, info.checksum)).exists():
      servers.setdefault(url.split('/')[2], url)
  for url in servers.values():
    cifar_without_tensorflow.reach(url)


@contextlib.contextmanager
def _damage_named(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
  """Turns any error of a damaged file into one that names the data set."""
  try:
    yield
  except BadInput:
    raise
  except Exception as error:
    raise BadInput(
        f'data.source tfds: {builder.name} in {builder.data_path} is damaged '
        f'({_reason(error)}): prepare it again') from error


def _reason(error: Exception) -> str:
  return f'{type(error).__name__}: ' + ' '.join(str(error).split())[:200]


def _is_unlabelled(builder, split, keys):
  """Whether a split has the label -1, TFDS's mark for labels not published."""
  with _damage_named(builder):
    source = builder.as_data_source(
        split=split, decoders={keys[0]: tfds.decode.SkipDecoding()})
    return len(source) > 0 and np.array_equal(source[0][keys[1]], -1)


def _split(builder, split, keys, image_size, lazy):
  feature = builder.info.features[keys[0]]
  has_id = 'id' in builder.info.features
  rows = []
  with _damage_named(builder):
    source = builder.as_data_source(split=split, decoders={
        keys[0]: tfds.decode.SkipDecoding()} if lazy else None)
    if not lazy:
      shape = (image_size, image_size, 3) if image_size else feature.shape
      host_memory.refuse(2 * len(source) * math.prod(x or 1 for x in shape),
                         f'the split {split} of {builder.name}',
                         'choose a smaller data.image_size')
    for i in range(len(source)):
      row = source[i]
      rows.append((row['id'] if has_id else i,
                   i if lazy else _image(builder, row[keys[0]], image_size),
                   row[keys[1]]))
    rows.sort(key=lambda row: row[0])
    labels = np.array([row[2] for row in rows])
    if labels.dtype.kind not in 'iu' or labels.ndim != 1:
      raise BadInput(f'data.source tfds: the labels of {builder.name} are '
                     f'{labels.dtype} {labels.shape}; whole numbers are needed')
    if not lazy:
      return _stack(builder, [row[1] for row in rows]), labels

  def decode(wanted):
    # With the first image, so that all hosts check against the same size.
    with _damage_named(builder):
      encoded = [source[rows[i][1]][keys[0]] for i in (0, *wanted)]
      return _stack(builder, [
          _image(builder, feature.decode_example_np(x), image_size)
          for x in encoded])[1:]
  one = decode([0])
  return Lazy((len(rows), *one.shape[1:]), one.dtype, decode), labels


def _image(builder, image, size):
  """Makes an image [H, W, 1 or 3] u8 RGB, and square if a size is given."""
  if image.dtype != np.uint8 or image.shape[-1] not in (1, 3):
    raise BadInput(f'data.source tfds: {builder.name} has images of '
                   f'{image.dtype} {image.shape}; 8 bits, grey or RGB, '
                   'are needed')
  if image.shape[-1] == 1:
    image = np.repeat(image, 3, -1)
  if not size or image.shape[:2] == (size, size):
    return image
  return np.asarray(Image.fromarray(image).resize(
      (size, size), Image.Resampling.BILINEAR))


def _stack(builder, images):
  if len({image.shape for image in images}) > 1:
    raise BadInput(f'data.source tfds: the images of {builder.name} differ in '
                   'size: choose one with --config.data.image_size')
  return np.stack(images)
