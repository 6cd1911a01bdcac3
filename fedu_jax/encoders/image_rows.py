"""The images to embed: files of a folder in any layout, or a data source."""

import collections
from collections.abc import Callable, Iterator, Sequence
import functools
import os
import pathlib
import threading
from typing import Any, NamedTuple

import numpy as np

from fedu_jax.data import decoded_cache
from fedu_jax.data import decoding_threads
from fedu_jax.data import folder_names
from fedu_jax.data import image_files
from fedu_jax.data import optional_readers
from fedu_jax.data import reading_report
from fedu_jax.data import sources
from fedu_jax.data.image_depth import Undeclared
from fedu_jax.data.image_depth import Unreadable
from fedu_jax.encoders import pictures
from fedu_jax.encoders.about import About
from fedu_jax.runtime.errors import BadInput

_AT_ONCE = 256  # images that are read from a source at a time


class Rows(NamedTuple):
  """Images that are read when they are embedded.

  Attributes:
    names: a name for each image.
    clients: the client or the first folder of each image; '' if unknown.
    labels: the class of each image; -1 if unknown.
    state: a text that changes when an image changes.
    read: (rows) -> for each row its pixels [H, W, C], or the reason why there
      are none.
    passed: a line for each file or link of a folder that is no row and may be
      an image: those that need a reader which is not installed, and links to
      folders or to nowhere.
  """
  names: Sequence[str]
  clients: Sequence[str]
  labels: Sequence[int] | np.ndarray
  state: str
  read: Callable[[range], Iterator[np.ndarray | str]]
  passed: Sequence[str] = ()


def of(images: str, about: About, data_dir: str = '') -> Rows:
  """Lists the images of a folder, an npz file or a data source.

  Args:
    images: the path of a folder or of an npz file, or a data source.
    about: the record of the encoder that will embed them.
    data_dir: the folder of TFDS's data sets; '' for TFDS's default.

  Raises:
    BadInput: there are none, or they cannot be read.
  """
  path = pathlib.Path(images.removeprefix('folder:')).expanduser()
  if path.is_dir():
    return _of_folder(path, about)
  if path.suffix == '.npz' and path.is_file():
    images = f'npz:{path}'
  if not sources.known(images) or images.startswith('folder:'):
    raise BadInput(f'--images is {images}, and there is no such folder or npz '
                   f'file: give one, or a data source ({sources.CHOICES})')
  return _of_source(images, about, data_dir)


def how_of(about: About) -> image_files.How:
  """Returns the choices by which a file becomes an encoder's image.

  Raises:
    BadInput: the encoder takes no squares.
  """
  if about.size[0] != about.size[1]:
    raise BadInput(f'the encoder takes {about.size[0]} by {about.size[1]} '
                   'pixels, and files become squares: give an npz file')
  return image_files.How(about.size[0], **{
      name: x for name, x in about.reading.items()
      if name in image_files.How._fields})


def _of_folder(root: pathlib.Path, about: About) -> Rows:
  """Lists all images below a folder, sorted; links to folders are passed over.
  """
  how = how_of(about)
  passed: list[str] = []
  paths = list(_walk(root, lambda path, reason: passed.append(
      f'{reading_report.shown(os.path.relpath(path, root))} ({reason})')))
  if not paths:
    raise BadInput(f'{root} has no images, at any depth' + (
        f', but {passed[0]}' if passed else ''))
  names = [reading_report.shown(os.path.relpath(x, root)) for x in paths]

  clients = [x.partition('/')[0] if '/' in x else '' for x in names]
  bits_of = _depths(paths, clients, how)

  def decoded(row: int) -> np.ndarray | str:
    path = pathlib.Path(paths[row])
    try:
      try:
        return image_files.decode(path, how).pixels
      except Undeclared:
        return image_files.decode(path, how, bits_of(clients[row])).pixels
    except Unreadable as error:
      return str(error)

  def read(rows: range) -> Iterator[np.ndarray | str]:
    for _, result in decoding_threads.in_order(
        rows, decoded, int(np.prod(about.shape))):
      yield result
  try:
    state = decoded_cache.state_of(map(pathlib.Path, paths))
  except OSError as error:
    raise reading_report.unreadable(error.filename, error) from error
  return Rows(names, clients, np.full(len(names), -1), state, read, passed)


def _depths(paths: Sequence[str], clients: Sequence[str],
            how: image_files.How) -> Callable[[str], int]:
  """Returns a function that finds the depth of a client's deep images.

  As in training, it is the smallest number of bits that holds their largest
  value. All images of the client are decoded for it, once.
  """
  lock = threading.Lock()
  own = collections.defaultdict(list)  # the paths of each client
  for path, owner in zip(paths, clients):
    own[owner].append(path)

  @functools.cache
  def most(client: str) -> int:
    found = 8
    for path in own[client]:
      if found < 16:
        try:
          image_files.decode(pathlib.Path(path), how)
        except Undeclared as error:
          found = max(found, error.most.bit_length())
        except Unreadable:
          pass
    return found

  def bits(client: str) -> int:
    with lock:
      return most(client)
  return bits


def _walk(folder: str | pathlib.Path, pass_over: Callable[[str, str], None]
          ) -> Iterator[str]:
  """Yields the paths of images, in the order of their names.

  Args:
    folder: the folder, which is searched at any depth.
    pass_over: called with the path and the reason for a file or link that may
      be an image and is not read.
  """
  try:
    with os.scandir(folder) as found:
      entries = sorted(found, key=lambda x: x.name)
  except OSError as error:
    raise reading_report.unreadable(folder, error) from error
  for entry in entries:
    if folder_names.is_hidden(entry):
      continue
    path = pathlib.Path(entry.path)
    if entry.is_dir(follow_symlinks=False):
      yield from _walk(entry.path, pass_over)
    elif entry.is_dir():
      pass_over(entry.path, 'link to a folder')
    elif entry.is_symlink() and not path.exists():
      pass_over(entry.path, 'link to nothing')
    elif reader := optional_readers.absent(path):
      pass_over(entry.path, f"pip install 'fedu_jax[{reader.extra}]' lets it "
                'be read')
    elif entry.is_file() and (
        image_files.is_image(path, False) or folder_names.nameless(path)
        and image_files.is_image(path, True)):
      yield entry.path


def _of_source(source: str, about: About, data_dir: str) -> Rows:
  """Lists the training and then the test images of a data source."""
  size = about.size[0] if about.size[0] == about.size[1] else 0
  data = sources.load(source, data_dir=data_dir, image_size=size, lazy=True)
  halves: list[Any] = [data.train_images] + (
      [] if data.test_images is None else [data.test_images])
  first = len(data.train_images)

  def read(rows: range) -> Iterator[np.ndarray | str]:
    for images, start in zip(halves, (0, first)):
      mine = range(max(rows.start, start),
                   min(rows.stop, start + len(images)))
      for i in range(mine.start, mine.stop, _AT_ONCE):
        for image in images[i - start:min(i + _AT_ONCE, mine.stop) - start]:
          yield pictures.fitted(np.asarray(image), about)

  counts = [len(x) for x in halves]
  labels = [np.full(count, -1) if x is None else x for x, count in zip(
      (data.train_labels, data.test_labels), counts)]
  clients = [''] * sum(counts)
  if data.owners is not None:
    clients[:first] = [data.owner_names[x] if data.owner_names else str(x)
                       for x in data.owners]
  path = pathlib.Path(source.removeprefix('npz:'))
  return Rows(
      [f'{half}/{i}' for half, count in zip(('train', 'test'), counts)
       for i in range(count)], clients, np.concatenate(labels),
      f'{source} {counts} {halves[0].shape} ' + (
          decoded_cache.state_of([path]) if path.is_file() else ''), read)
