"""Where images come from. Each source is chosen by name, and read once.

`tfds:<builder>`, `digits`, `npz:<file>`, `folder:<dir>`: all become uint8
arrays in a stable order. What takes time to decode is cached beside the data.
Read lazily, images are decoded when they are asked for, and not cached.
"""

import functools
import hashlib
import pathlib
from typing import Any, NamedTuple
import zipfile

import numpy as np
from PIL import Image, ImageOps

from fedu_jax import cache
from fedu_jax import lazy as lazy_lib
from fedu_jax.errors import BadInput
from fedu_jax.lazy import Images, Lazy

_FOLDER_SIZE = 32  # pixels, where the config does not say


class Dataset(NamedTuple):
  """Examples in a stable order; the test half and the labels may be absent."""
  train_images: Images  # [N, H, W, 3] u8
  train_labels: np.ndarray | None = None  # [N] i32
  test_images: Images | None = None
  test_labels: np.ndarray | None = None
  owners: np.ndarray | None = None  # [N] i32, where the source names them
  owner_names: tuple[str, ...] = ()


def load(source: str, *, data_dir: str = '', image_size: int = 0,
         max_examples: int = 0, lazy: bool = False) -> Dataset:
  """Reads a source.

  Args:
    source: 'digits', or a kind and what it reads: 'tfds:cifar10'.
    data_dir: for tfds, its root; '' for TFDS's default.
    image_size: pixels of a side; 0 keeps the images' own.
    max_examples: keep this many training examples, evenly over classes (or
      owners) and the first of each; 0 keeps all.
    lazy: whether images are read, decoded and resized only when they are
      indexed. Of an npz file and of what is cached, rows are mapped into
      memory; a compressed npz is passed over; digits are few, and read.

  Raises:
    BadInput: whatever of it is missing, unreadable or malformed. What is wrong
      with an image may show only when it is read.
  """
  kind, _, what = source.partition(':')
  if kind not in _SOURCES or bool(what) == (kind == 'digits'):
    raise BadInput(f'data.source is {source!r}: use digits, tfds:<builder>, '
                   'npz:<file> or folder:<dir>')
  data = _SOURCES[kind](what, data_dir, image_size, lazy)
  if image_size and data.train_images.shape[1:3] != (image_size,) * 2:
    fit = functools.partial(resize, size=image_size)
    data = data._replace(train_images=lazy_lib.each(fit, data.train_images))
    if data.test_images is not None:
      data = data._replace(test_images=lazy_lib.each(fit, data.test_images))
  return _first(data, max_examples) if max_examples else data


def resize(images: np.ndarray, size: int) -> np.ndarray:
  """Resizes [N, H, W, 3] u8 bilinearly, antialiased, as torchvision on PIL."""
  return np.stack([np.asarray(Image.fromarray(image).resize(
      (size, size), Image.Resampling.BILINEAR)) for image in images])


def rank_in_group(groups: np.ndarray) -> np.ndarray:
  """Numbers the examples of each group: [N] i32 -> [N], 0 for its first."""
  rank = np.empty(len(groups), int)
  for group in np.unique(groups):
    mine = np.flatnonzero(groups == group)
    rank[mine] = np.arange(len(mine))
  return rank


def _first(data: Dataset, count: int) -> Dataset:
  """Keeps `count` training examples: the first of each class, evenly."""
  total = len(data.train_images)
  if count > total:
    raise BadInput(f'data.max_examples is {count}, but the data has {total} '
                   'training examples: lower it, or 0 for all')
  groups = data.owners if data.train_labels is None else data.train_labels
  if groups is None:
    groups = np.zeros(total, np.int32)
  rank = rank_in_group(groups)
  keep = np.sort(np.lexsort((np.arange(total), rank))[:count])

  def rows(x):
    return None if x is None else x[keep]
  images = data.train_images
  return data._replace(
      train_images=(images.take(keep) if isinstance(images, Lazy)
                    else images[keep]),
      train_labels=rows(data.train_labels), owners=rows(data.owners))


def _digits(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """The 1,797 handwritten digits that scikit-learn ships; each 5th is a test.
  """
  del what, data_dir, image_size, lazy
  from sklearn import datasets
  digits = datasets.load_digits()  # 8x8, 0..16
  images = np.round(digits.images * (255 / 16)).astype(np.uint8)
  images = _rgb(images)
  labels = digits.target.astype(np.int32)
  test = np.arange(len(labels)) % 5 == 4
  return Dataset(images[~test], labels[~test], images[test], labels[test])


def _rgb(images: np.ndarray) -> np.ndarray:
  """Makes [N, H, W] or [N, H, W, 1] three equal channels."""
  images = images.reshape(*images.shape[:3], -1)
  return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images


def _tfds(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """Any prepared TFDS classification set; CIFAR is prepared here if need be."""
  from fedu_jax import tfds_reader
  builder = tfds_reader.find(what, data_dir)
  return (cache.mapped if lazy else cache.kept)(
      pathlib.Path(builder.data_path), f"{what.replace('/', '-')}-{image_size}",
      Dataset, lambda: Dataset(*tfds_reader.read(builder, image_size, lazy)))


def _npz(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """train_images, train_labels, test_images, test_labels; or Keras's names."""
  del data_dir, image_size
  names = {'train_images': 'x_train', 'train_labels': 'y_train',
           'test_images': 'x_test', 'test_labels': 'y_test'}
  try:
    with open(what, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
      found = {ours: ours if ours in file else keras
               for ours, keras in names.items()
               if ours in file or keras in file}
      arrays: dict[str, Any] = {
          ours: lazy_lib.member(what, theirs)
          if lazy and ours.endswith('images') else file[theirs]
          for ours, theirs in found.items()}
  except FileNotFoundError as error:
    raise BadInput(f'data.source npz: there is no file {what}') from error
  except (OSError, ValueError, EOFError, TypeError, AttributeError,
          zipfile.BadZipFile) as error:
    raise BadInput(f'data.source npz: {what} is not a readable npz of plain '
                   f'arrays ({error})') from error
  if 'train_images' not in arrays:
    raise BadInput(f'data.source npz: {what} has no train_images (or x_train)')
  for half in ('train', 'test'):
    images, labels = arrays.get(f'{half}_images'), arrays.get(f'{half}_labels')
    if images is None:
      arrays.pop(f'{half}_labels', None)
      continue
    if (images.dtype != np.uint8 or images.ndim not in (3, 4)
        or images.shape[3:] not in ((), (1,), (3,)) or not images.size):
      raise BadInput(
          f'data.source npz: {half}_images in {what} is {images.dtype} '
          f'{images.shape}; it must be uint8 [N, H, W], [N, H, W, 1] or '
          '[N, H, W, 3]')
    arrays[f'{half}_images'] = lazy_lib.each(_rgb, images)
    if labels is None:
      continue
    labels = labels.reshape(-1)
    if (len(labels) != len(images) or labels.dtype.kind not in 'iu'
        or labels.min() < 0):
      raise BadInput(f'data.source npz: {half}_labels in {what} must be '
                     f'{len(images)} integers from 0, one for each image')
    arrays[f'{half}_labels'] = labels.astype(np.int32)
  if ('test_images' in arrays and arrays['test_images'].shape[1:]
      != arrays['train_images'].shape[1:]):
    raise BadInput(f'data.source npz: train and test images in {what} differ '
                   'in size')
  return Dataset(**arrays)


def _folder(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """One folder of images a client, unlabelled, in the order of their names."""
  del data_dir
  root = pathlib.Path(what)
  if not root.is_dir():
    raise BadInput(f'data.source folder: there is no folder {what}')
  kinds = Image.registered_extensions()
  owners = sorted(p for p in root.iterdir()
                  if p.is_dir() and not p.name.startswith('.'))
  files = [sorted(p for p in owner.rglob('*')
                  if p.suffix.lower() in kinds and not p.name.startswith('.'))
           for owner in owners]
  if not owners:
    raise BadInput(f'data.source folder: {what} has no folders; it needs one '
                   'folder of images for each client')
  for owner, mine in zip(owners, files):
    if not mine:
      raise BadInput(f'data.source folder: {owner} has no images')
  size = image_size or _FOLDER_SIZE
  paths = [path for mine in files for path in mine]

  def decode(rows):
    return np.stack([_open(paths[i], size) for i in rows])

  def read():
    numbers = np.repeat(np.arange(len(files)), [len(mine) for mine in files])
    images = Lazy((len(paths), size, size, 3), np.uint8, decode)
    return Dataset(images if lazy else images[:],
                   owners=numbers.astype(np.int32))

  listing = '\n'.join(f'{p} {p.stat().st_size} {p.stat().st_mtime_ns}'
                      for p in paths)
  digest = hashlib.sha256(listing.encode()).hexdigest()[:16]
  data = (cache.mapped if lazy else cache.kept)(
      root, f'images-{size}-{digest}', Dataset, read)
  return data._replace(owner_names=tuple(owner.name for owner in owners))


def _open(path: pathlib.Path, size: int) -> np.ndarray:
  """Decodes one file: upright, RGB, cropped to a square in its middle."""
  try:
    with Image.open(path) as file:
      image = ImageOps.exif_transpose(file)
      if image.mode.startswith('I'):  # 16 bits, which convert() would clip
        image = Image.fromarray(
            (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
      image = image.convert('RGB')
      return np.asarray(ImageOps.fit(image, (size, size),
                                     Image.Resampling.BILINEAR))
  except (OSError, ValueError, SyntaxError, EOFError,
          Image.DecompressionBombError) as error:
    raise BadInput(f'data.source folder: {path} is not a readable image '
                   f'({error}): repair or remove it') from error


_SOURCES = {'digits': _digits, 'tfds': _tfds, 'npz': _npz, 'folder': _folder}
