"""Where images come from. Each source is chosen by name, and read once.

`tfds:<builder>`, `digits`, `npz:<file>`, `folder:<dir>`: all become uint8
arrays in a stable order. What takes time to decode is cached beside the data.
Read lazily, images are decoded when they are asked for, and not cached.
"""

import functools
import importlib
import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fedu_jax import cache
from fedu_jax import folders
from fedu_jax import lazy as lazy_lib
from fedu_jax import memory
from fedu_jax import paths
from fedu_jax.errors import BadInput
from fedu_jax.image_files import How
from fedu_jax.lazy import Images, Lazy
from fedu_jax.tally import Files

# Labels are below it: the largest sets have some 22,000 classes, and of a label
# that is a slip, tables and classifiers would be made of its size.
MOST_CLASSES = 100_000


class Dataset(NamedTuple):
  """Examples in a stable order; the test half and the labels may be absent."""
  train_images: Images  # [N, H, W, 3] u8
  train_labels: np.ndarray | None = None  # [N] i32
  test_images: Images | None = None
  test_labels: np.ndarray | None = None
  owners: np.ndarray | None = None  # [N] i32, where the source names them
  owner_names: tuple[str, ...] = ()
  skipped: tuple[str, ...] = ()  # what of a folder was not read, and why
  files: Files | None = None  # the same in numbers


def load(source: str, *, data_dir: str = '', image_size: int = 0,
         max_examples: int = 0, lazy: bool = False, fit: str = 'crop',
         depth: int = 0, leave_out: str = '',
         progress: folders.Progress = lambda done, total: None) -> Dataset:
  """Reads a source.

  Args:
    source: 'digits', or a kind and what it reads: 'tfds:cifar10'.
    data_dir: for tfds, its root; '' for TFDS's default.
    image_size: pixels of a side; 0 keeps the images' own, and of a folder,
      where each image may have another, is `folders.DEFAULT_SIZE`.
    max_examples: keep this many training examples, evenly over classes (or
      owners) and the first of each; 0 keeps all.
    lazy: whether images are read, decoded and resized only when they are
      indexed. Of an npz file and of what is cached, rows are mapped into
      memory; a compressed npz is passed over; digits are few, and read.
    fit: of a folder, how an image becomes square: 'crop' or 'pad'.
    depth: of a folder, the bits of images of more than 8; 0: see `folders`.
    leave_out: of a folder, names of folders in it that are not read, with
      commas between them.
    progress: is told how many files of a folder are decoded, and of how many.

  Raises:
    BadInput: whatever of it is missing, unreadable or malformed. What is wrong
      with an image may show only when it is read.
  """
  if not known(source):
    raise BadInput(f'data.source is {source!r}: use digits, tfds:<builder>, '
                   'npz:<file> or folder:<dir>')
  kind, _, what = source.partition(':')
  if kind in ('npz', 'folder'):
    what = str(paths.typed(what, f'data.source {kind}:'))
  if data_dir:
    data_dir = str(paths.typed(data_dir, 'config.data.dir'))
  if kind == 'folder':
    data = _folder(what, How(image_size, fit, depth), leave_out, lazy, progress)
  elif wrong := [name for name, value, usual in (
      ('fit', fit, 'crop'), ('depth', depth, 0),
      ('leave_out', leave_out, '')) if value != usual]:
    raise BadInput(f'data.{wrong[0]} is set, which is for folder:<dir>, and '
                   f'data.source is {source}: leave it as it was')
  else:
    data = _SOURCES[kind](what, data_dir, image_size, lazy)
  data = data._replace(
      train_labels=_labels(data.train_labels, 'training', source),
      test_labels=_labels(data.test_labels, 'test', source))
  if not lazy:
    memory.refuse(len(data.train_images) * image_size**2 * 3,
                  f'{source} at {image_size} pixels')
  if image_size and data.train_images.shape[1:3] != (image_size,) * 2:
    sized = functools.partial(resize, size=image_size)
    data = data._replace(train_images=lazy_lib.each(sized, data.train_images))
    if data.test_images is not None:
      data = data._replace(test_images=lazy_lib.each(sized, data.test_images))
  return _first(data, max_examples) if max_examples else data


def known(source: str) -> bool:
  """Whether a source is called as one is; it may still not be there."""
  kind, _, what = source.partition(':')
  return kind in (*_SOURCES, 'folder') and bool(what) != (kind == 'digits')


def import_reader(source: str) -> None:
  """Imports what reads a source: to be called before a bar or a status shows.

  While TFDS is imported it replaces `__import__` for all threads, over which
  the one that draws would trip.
  """
  if source.startswith('tfds:'):
    importlib.import_module('fedu_jax.tfds_reader')


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


def _labels(labels: np.ndarray | None, half: str,
            source: str) -> np.ndarray | None:
  """Checks that labels [N] can be classes, and makes them i32."""
  if labels is None:
    return None
  if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
    raise BadInput(f'data.source is {source}, whose {half} labels go from '
                   f'{labels.min()} to {labels.max()}; they must number the '
                   f'classes from 0, below {MOST_CLASSES:,}')
  return labels.astype(np.int32)


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

  def fits(found: Dataset) -> bool:
    splits = builder.info.splits
    return found.owners is None and all(
        images is not None and labels is not None
        and cache.is_images(images, image_size)
        and labels.shape == (len(images),) and labels.dtype.kind in 'iu'
        and len(images) in [x.num_examples for x in splits.values()]
        for images, labels in ((found.train_images, found.train_labels),
                               (found.test_images, found.test_labels)))
  return (cache.mapped if lazy else cache.kept)(
      pathlib.Path(builder.data_path), f"{what.replace('/', '-')}-{image_size}",
      tfds_reader.state_of(builder), Dataset,
      lambda: Dataset(*tfds_reader.read(builder, image_size, lazy)), fits)


def _npz(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """train_images, train_labels, test_images, test_labels; or Keras's names."""
  del data_dir, image_size
  names = {'train_images': 'x_train', 'train_labels': 'y_train',
           'test_images': 'x_test', 'test_labels': 'y_test'}
  if not pathlib.Path(what).is_file():  # to open a pipe would be to wait
    raise BadInput(f'data.source npz: there is no file {what}')
  try:
    with open(what, 'rb') as raw, np.load(raw, allow_pickle=False) as file:
      found = {ours: ours if ours in file.files else keras
               for ours, keras in names.items()
               if ours in file.files or keras in file.files}
      memory.refuse(sum(
          file.zip.getinfo(f'{theirs}.npy').file_size
          for ours, theirs in found.items()
          if not (lazy and ours.endswith('images'))), what)
      arrays: dict[str, Any] = {
          ours: lazy_lib.member(what, theirs)
          if lazy and ours.endswith('images') else file[theirs]
          for ours, theirs in found.items()}
    if any(isinstance(x, bytes) for x in arrays.values()):
      raise ValueError('what is called an array in it is none')
  except BadInput:
    raise
  except Exception as error:  # a damaged file leads NumPy and zip to anything
    raise BadInput(f'data.source npz: {what} is not a readable npz of plain '
                   f'arrays ({type(error).__name__}: {error})') from error
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
    if len(labels) != len(images) or labels.dtype.kind not in 'iu':
      raise BadInput(f'data.source npz: {half}_labels in {what} must be '
                     f'{len(images)} integers, one for each image')
    arrays[f'{half}_labels'] = labels
  if ('test_images' in arrays and arrays['test_images'].shape[1:]
      != arrays['train_images'].shape[1:]):
    raise BadInput(f'data.source npz: train and test images in {what} differ '
                   'in size')
  return Dataset(**arrays)


def _folder(what: str, how: How, leave_out: str, lazy: bool,
            progress: folders.Progress) -> Dataset:
  """One folder of images a client, unlabelled, in the order of their names."""
  names = tuple(x.strip().strip('/') for x in leave_out.split(',') if x)
  found, owner_names, files, skipped = folders.read(
      pathlib.Path(what), how, names, lazy, progress)
  return Dataset(found.images, owners=found.owners, owner_names=owner_names,
                 skipped=skipped, files=files)


_SOURCES = {'digits': _digits, 'tfds': _tfds, 'npz': _npz}
