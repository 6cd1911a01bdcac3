"""Sources of images. The config names one, and it is read once.

`tfds:<builder>`, `digits`, `npz:<file>`, `folder:<dir>`, or a researcher's own
`package.module:function`: all return arrays in a stable order. Decoded
images of TFDS sets and folders are cached next to the data. Those of a large
folder stay in the cache's file until they are indexed. With `lazy`, images are
decoded when they are indexed, and not cached.
"""

from collections.abc import Callable, Mapping
import functools
import importlib
import inspect
import pathlib
from typing import Any

import numpy as np

from fedu_jax.data import dataset
from fedu_jax.data import decoded_cache
from fedu_jax.data import folder_listing
from fedu_jax.data import image_files
from fedu_jax.data import image_folders
from fedu_jax.data import labelled_files
from fedu_jax.data import labelled_images
from fedu_jax.data import lazy_arrays as lazy_lib
from fedu_jax.data import npz
from fedu_jax.data import own_source
from fedu_jax.data import pixel_arrays
from fedu_jax.data.dataset import Dataset
from fedu_jax.data.image_files import How
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import paths
from fedu_jax.runtime.errors import BadInput

CHOICES = ('digits, tfds:<builder>, npz:<file>, folder:<dir>, or your own as '
           'package.module:function')


def load(source: str, *, data_dir: str = '', image_size: int = 0,
         max_examples: int = 0, lazy: bool = False, fit: str = 'crop',
         depth: int = 0, colours: str = 'stored', channels: int = 3,
         keep_depth: bool = False, leave_out: str = '',
         client_depth: str = '1', test: str = '', window: str = 'file',
         progress: image_folders.Progress = lambda done, total: None,
         say: Callable[[str], None] = lambda text: None,
         choices: Mapping[str, Any] | None = None) -> Dataset:
  """Reads a source.

  Args:
    source: 'digits'; a kind and what it reads, as 'tfds:cifar10'; or a
      function, 'package.module:function'.
    data_dir: the root of TFDS; '' for its default.
    image_size: pixels of a side. 0 keeps the size of the images; for a folder,
      0 means `image_folders.DEFAULT_SIZE`.
    max_examples: the number of training examples to keep, evenly over owners
      and over classes within each owner, the first ones of each; 0 keeps all.
    lazy: whether images are read, decoded and resized only when they are
      indexed. Arrays of npz files and of the cache are then mapped into memory.
      Digits are always read at once.
    fit: for a folder, how an image becomes square: 'crop' or 'pad'.
    depth: for a folder, the bits of deep images; 0: see `image_folders`.
    colours: for a folder, 'stored' or 'seen', see `image_colours`.
    channels: 3, or 1 for grey images, see `pixel_arrays.with_channels`.
    keep_depth: whether images are uint16, of which full scale is 65535.
    leave_out: for a folder, names of folders in it that are not read, separated
      by commas.
    client_depth: for a folder, how deep the clients' folders are, see
      `folder_listing.listed`.
    test: labelled images for scores, see `labelled_images`; '' for those of the
      source.
    window: of DICOM files, see `dicom_files.WINDOWS`.
    progress: for a folder, called with (files decoded, all files).
    say: for a folder, prints a line before it is decoded.
    choices: more keyword arguments of a function.

  Returns:
    The data set.

  Raises:
    BadInput: the source or a part of it is missing, unreadable or malformed.
      With `lazy`, errors in an image may show only when it is indexed.
  """
  if not known(source):
    raise BadInput(f'data.source is {source!r}: use {CHOICES}')
  kind, _, what = source.partition(':')
  if kind in _PATHS:
    what = str(paths.typed(what, f'the path of data.source {kind}'))
  if data_dir:
    data_dir = str(paths.typed(data_dir, 'config.data.dir'))
  own = function(source)
  taken = inspect.signature(own).parameters if own else {}
  how = How(image_size, fit, depth, colours, channels, keep_depth,
            window)
  files: list[pathlib.Path] = []
  if kind == 'folder':
    data, files = _folder(what, how, leave_out, client_depth, lazy, progress,
                          say)
  elif wrong := [name for name, value, usual in (
      *(() if test else (('fit', fit, 'crop'), ('depth', depth, 0),
                         ('colours', colours, 'stored'),
                         ('window', window, 'file'))),
      ('leave_out', leave_out, ''), ('client_depth', client_depth, '1'))
                 if value != usual and name not in taken]:
    raise BadInput(f'data.{wrong[0]} is set, which is for folder:<dir>, and '
                   f'data.source is {source}: leave it as it was')
  elif own:
    offered = dict(choices or {}) | {
        'dir': data_dir, 'image_size': image_size, 'lazy': lazy}
    data = own_source.read(source, own, {
        name: value for name, value in offered.items() if name in taken})
  else:
    data = _SOURCES[kind](what, data_dir, image_size, lazy)
  data = dataset.with_pixels(data, channels, keep_depth, source)
  data = data._replace(
      train_labels=dataset.class_labels(data.train_labels, 'training', source),
      test_labels=dataset.class_labels(data.test_labels, 'test', source))
  if image_size:
    data = _resized(data, source, image_size, lazy)
  if test:
    data = _with_test(data, test, how, files, progress, say)
  return dataset.first(data, max_examples) if max_examples else data


def _with_test(data: Dataset, test: str, how: How, files: list[pathlib.Path],
               progress: image_folders.Progress, say: Callable[[str], None]
               ) -> Dataset:
  """Adds the labelled images of data.test, of the size of the others."""
  height, width = data.train_images.shape[1:3]
  if height != width:
    raise BadInput(f'data.test: the training images are {height} by {width} '
                   'pixels, and those of data.test become squares: set '
                   'data.image_size')
  found = labelled_images.read(test, how._replace(size=height), files, progress,
                               say)
  return data._replace(**{
      name: value for name, value in found._asdict().items()
      if name != 'skipped'}, skipped=data.skipped + found.skipped)


def known(source: str) -> bool:
  """Whether a text has the form of a source; the data may still be missing."""
  kind, _, what = source.partition(':')
  if kind in _KINDS:
    return bool(what) != (kind == 'digits')
  return what.isidentifier() and all(x.isidentifier() for x in kind.split('.'))


def function(source: str) -> Callable[..., Any] | None:
  """Returns the function that a source names; None for a built-in source.

  Raises:
    BadInput: the function cannot be imported, or has arguments that are neither
      keyword-only nor have a default.
  """
  kind = source.partition(':')[0]
  if kind in _KINDS or not known(source):
    return None
  return own_source.function(source, CHOICES)


def absolute(source: str) -> str:
  """Makes the path of data.source or data.test absolute, if it has one."""
  kind, _, what = source.partition(':')
  if kind not in (*_PATHS, *labelled_files.KINDS) or not what:
    return source
  try:
    return f'{kind}:{paths.typed(what, source).absolute()}'
  except BadInput:  # the path cannot be resolved
    return source


def import_reader(source: str) -> None:
  """Imports the reader of a source, before a progress bar is shown.

  During its import TFDS replaces `__import__` for all threads. A thread that
  draws a bar at that time would fail.
  """
  if source.startswith('tfds:'):
    importlib.import_module('fedu_jax.data.tfds_reader')


def _resized(data: Dataset, source: str, size: int, lazy: bool) -> Dataset:
  """Resizes the images of a data set if they have another size."""
  if data.train_images.shape[1:3] == (size, size):
    return data
  if not lazy:
    one = data.train_images[:1]
    host_memory.refuse(
        len(data.train_images) * size**2 * one.shape[-1] * one.dtype.itemsize,
        f'{source} at {size} pixels',
        'choose a smaller data.image_size or data.max_examples')
  sized = functools.partial(pixel_arrays.resize, size=size)
  data = data._replace(train_images=lazy_lib.each(sized, data.train_images))
  if data.test_images is not None:
    data = data._replace(test_images=lazy_lib.each(sized, data.test_images))
  return data


def _digits(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """The 1,797 handwritten digits of scikit-learn; every fifth is for tests."""
  del what, data_dir, image_size, lazy
  from sklearn import datasets
  digits = datasets.load_digits()  # 8x8, 0..16
  images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
  labels = digits.target.astype(np.int32)
  test = np.arange(len(labels)) % 5 == 4
  return Dataset(images[~test], labels[~test], images[test], labels[test])


def _tfds(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """A TFDS classification set; CIFAR is prepared if it is not yet."""
  from fedu_jax.data import tfds_reader
  builder = tfds_reader.find(what, data_dir)

  def fits(found: Dataset) -> bool:
    splits = builder.info.splits
    return found.owners is None and all(
        images is not None and labels is not None
        and decoded_cache.is_images(images, image_size)
        and labels.shape == (len(images),) and labels.dtype.kind in 'iu'
        and len(images) in [x.num_examples for x in splits.values()]
        for images, labels in ((found.train_images, found.train_labels),
                               (found.test_images, found.test_labels)))
  return (decoded_cache.mapped if lazy else decoded_cache.kept)(
      pathlib.Path(builder.data_path), f"{what.replace('/', '-')}-{image_size}",
      tfds_reader.state_of(builder), Dataset,
      lambda: Dataset(*tfds_reader.read(builder, image_size, lazy)), fits)


def _npz(what: str, data_dir: str, image_size: int, lazy: bool) -> Dataset:
  """An npz file."""
  del data_dir, image_size
  return npz.read(what, lazy)


def _folder(what: str, how: How, leave_out: str, client_depth: str, lazy: bool,
            progress: image_folders.Progress, say: Callable[[str], None]
            ) -> tuple[Dataset, list[pathlib.Path]]:
  """A folder of unlabelled images for each client, and all its files."""
  names = tuple(x.strip().strip('/') for x in leave_out.split(',') if x)
  root = pathlib.Path(what)
  listing = folder_listing.listed(
      root, names, image_files.is_image, client_depth)
  found, owner_names, files, skipped = image_folders.read(
      root, listing, how, lazy, progress, say)
  data = Dataset(found.images, owners=found.owners, owner_names=owner_names,
                 skipped=skipped, files=files)
  return data, [path for mine in listing.files for path in mine]


_PATHS = 'npz', 'folder'  # the kinds that read a path
_SOURCES = {'digits': _digits, 'tfds': _tfds, 'npz': _npz}
_KINDS = (*_SOURCES, 'folder')
