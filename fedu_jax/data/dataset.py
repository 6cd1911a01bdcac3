"""A data set: images, labels and owners, and the checks of their shapes."""

from typing import Any, NamedTuple

import numpy as np

from fedu_jax.data import lazy_arrays
from fedu_jax.data import pixel_arrays
from fedu_jax.data.lazy_arrays import Images, Lazy
from fedu_jax.data.reading_report import Files
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput

# Labels must be below it, because tables and classifiers are as large as the
# largest label. The largest data sets have some 22,000 classes.
MOST_CLASSES = 100_000
MOST_OWNERS = 10**6


class Dataset(NamedTuple):
  """Examples in a stable order. Test images and labels may be absent."""
  train_images: Images  # [N, H, W, 1 or 3] u8 or u16
  train_labels: np.ndarray | None = None  # [N] i32
  test_images: Images | None = None
  test_labels: np.ndarray | None = None
  owners: np.ndarray | None = None  # [N] i32, of the training images
  owner_names: tuple[str, ...] = ()
  skipped: tuple[str, ...] = ()  # files that were not read, with the reason
  files: Files | None = None  # the counts of files, for a folder of images
  # Labelled images that train probes in place of the training images; they come
  # with data.test, as test_images then do.
  probe_images: Images | None = None
  probe_labels: np.ndarray | None = None
  lines: tuple[str, ...] = ()  # what is to be said of them


def checked(arrays: dict[str, Any], what: str, kind: str) -> Dataset:
  """Checks arrays of images, labels and owners, and makes a Dataset of them.

  Args:
    arrays: the arrays by their names in `Dataset`. All but train_images may be
      absent. Images are uint8 or uint16, [N, H, W], [N, H, W, 1] or
      [N, H, W, 3]. Labels and owners are one whole number for each image.
      owner_names are one text for each owner.
    what: the file or function that they come from, for messages.
    kind: the kind of source, for messages.

  Returns:
    The data set, with images [N, H, W, 1 or 3].

  Raises:
    BadInput: an array has another shape, dtype or range.
  """
  def refuse(complaint):
    raise BadInput(f'data.source {kind}: {complaint}')
  for half in ('train', 'test'):
    _check_half(half, arrays, what, refuse)
  if ('test_images' in arrays and arrays['test_images'].shape[1:]
      != arrays['train_images'].shape[1:]):
    refuse(f'train and test images in {what} differ in size')
  if 'owners' in arrays:
    arrays['owners'] = _owners(
        arrays['owners'], len(arrays['train_images']), what, refuse)
  names = arrays.pop('owner_names', None)
  if names is None:
    return Dataset(**arrays)
  count = int(arrays['owners'].max()) + 1 if 'owners' in arrays else 0
  if names.dtype.kind != 'U' or names.shape != (count,):
    refuse(f'owner_names in {what} is {names.dtype} {names.shape}; it must be '
           f'{count} texts, one for each owner')
  return Dataset(**arrays, owner_names=tuple(
      ''.join(c if c.isprintable() else '?' for c in name)
      for name in names.tolist()))


def _check_half(half, arrays, what, refuse):
  """Checks images and labels for training or for tests, and changes both."""
  images, labels = arrays.get(f'{half}_images'), arrays.get(f'{half}_labels')
  if images is None:
    arrays.pop(f'{half}_labels', None)
    return
  if (images.dtype not in pixel_arrays.DTYPES or images.ndim not in (3, 4)
      or images.shape[3:] not in ((), (1,), (3,)) or not images.size):
    refuse(f'{half}_images in {what} is {images.dtype} {images.shape}; it '
           'must be uint8 or uint16, [N, H, W], [N, H, W, 1] or [N, H, W, 3]')
  if images.ndim == 3 and images.shape[2] == 3 and labels is None:
    refuse(f'{half}_images in {what} is {images.shape}, which may be one '
           'image in colour: give [1, H, W, 3], or [N, H, 3, 1] for grey '
           'images of 3 pixels')
  arrays[f'{half}_images'] = lazy_arrays.each(_with_axis, images)
  if labels is not None:
    arrays[f'{half}_labels'] = _integers(
        labels, len(images), f'{half}_labels', what, refuse)


def _owners(values, count, what, refuse):
  """Checks the owner of each image: all numbers from 0 to the last one."""
  owners = _integers(values, count, 'owners', what, refuse)
  last = int(owners.max())
  if not 0 <= owners.min() <= last < MOST_OWNERS:
    refuse(f'owners in {what} go from {owners.min()} to {last}; they must '
           f'number the owners from 0, below {MOST_OWNERS:,}')
  if len(absent := np.setdiff1d(np.arange(last + 1), owners)):
    refuse(f'owners in {what} go up to {last}, but owner {absent[0]} has no '
           'image: number them without gaps')
  return owners.astype(np.int32)


def _integers(values, count, name, what, refuse):
  """Checks that there is a whole number for each image, [N] or [N, 1]."""
  if values.size != count or values.dtype.kind not in 'iu':
    refuse(f'{name} in {what} must be {count} integers, one for each image')
  return values.reshape(-1)


def class_labels(labels: np.ndarray | None, half: str,
                 source: str) -> np.ndarray | None:
  """Checks that labels [N] are from 0 to MOST_CLASSES - 1; makes them i32."""
  if labels is None:
    return None
  if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
    raise BadInput(f'data.source is {source}; its {half} labels go from '
                   f'{labels.min()} to {labels.max()}; they must number the '
                   f'classes from 0, below {MOST_CLASSES:,}')
  return labels.astype(np.int32)


def first(data: Dataset, count: int) -> Dataset:
  """Keeps `count` training examples: the first ones of each group, evenly.

  Groups are the owners, and within each owner the classes.

  Raises:
    BadInput: there are fewer examples than `count`.
  """
  total = len(data.train_images)
  if count > total:
    raise BadInput(f'data.max_examples is {count}, but the data has {total} '
                   'training examples: lower it, or 0 for all')
  keep = np.sort(np.lexsort((np.arange(total), _turns(data)))[:count])

  def rows(x):
    return None if x is None else x[keep]
  images = data.train_images
  return data._replace(
      train_images=(images.take(keep) if isinstance(images, Lazy)
                    else images[keep]),
      train_labels=rows(data.train_labels), owners=rows(data.owners))


def _turns(data: Dataset) -> np.ndarray:
  """The turn of each example, [N], if groups take turns."""
  labels, owners = data.train_labels, data.owners
  if labels is None or owners is None:
    groups = owners if labels is None else labels
    return np.arange(len(data.train_images)) if groups is None else (
        rank_in_group(groups))
  within = rank_in_group(owners.astype(np.int64) * MOST_CLASSES + labels)
  turns = np.empty(len(owners), int)
  order = np.lexsort((np.arange(len(owners)), within))
  turns[order] = rank_in_group(owners[order])
  return turns


def rank_in_group(groups: np.ndarray) -> np.ndarray:
  """Numbers the examples of each group from 0: [N] i32 -> [N]."""
  order = np.argsort(groups, kind='stable')
  ordered = groups[order]
  rank = np.empty(len(groups), int)
  rank[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
  return rank


def _with_axis(images: np.ndarray) -> np.ndarray:
  """Gives images [N, H, W] an axis of one channel."""
  return images.reshape(*images.shape[:3], -1)


def with_pixels(data: Dataset, channels: int, keep_depth: bool,
                source: str) -> Dataset:
  """Gives the images of a data set their channels and their depth.

  Args:
    data: the data set.
    channels: 1 or 3, see `pixel_arrays.with_channels`.
    keep_depth: whether images become uint16; else they must be uint8.
    source: the source, for messages.

  Raises:
    BadInput: images are uint16, and `keep_depth` is False; or they do not fit
      the memory.
  """
  def converted(images: Images) -> Images:
    if images.dtype == np.uint16 and not keep_depth:
      raise BadInput(f'the images of {source} are uint16: set '
                     '--config.data.keep_depth=True to train on all 16 bits, '
                     'or make them uint8')
    factor = (channels / images.shape[-1]) * (
        1 + (keep_depth and images.dtype == np.uint8))
    if isinstance(images, np.ndarray) and factor > 1 and images.nbytes > 2**24:
      host_memory.refuse(int(factor * images.nbytes),
                         f'images in {channels} channels'
                         + ' of 16 bits' * keep_depth,
                         'choose fewer or smaller ones')

    def pixels(images):
      images = pixel_arrays.with_channels(images, channels)
      return pixel_arrays.sixteen_bits(images) if keep_depth else images
    return lazy_arrays.each(pixels, images)
  data = data._replace(train_images=converted(data.train_images))
  return data if data.test_images is None else data._replace(
      test_images=converted(data.test_images))
