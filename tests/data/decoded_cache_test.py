"""The decoded cache never returns other data, and decodes once."""

import os
import pathlib
import re
import types
from typing import NamedTuple

import numpy as np
from PIL import Image
import pytest

from fedu_jax.data import decoded_cache
from fedu_jax.data import sources
from fedu_jax.data import tfds_reader
from fedu_jax.runtime import durable_files


class Arrays(NamedTuple):
  images: np.ndarray


def cached(root):
  return sorted(path.name for path in root.glob('.fedu_jax-*'))


def keep(root, name, state, value):
  """Returns what is cached, or caches `value`."""
  return decoded_cache.kept(
      root, name, state, Arrays, lambda: Arrays(np.full(3, value)),
      lambda _: True).images[0]


def test_one_file_stays_of_each_decoding(tmp_path):
  a, b = 'a' * 16, 'b' * 16
  for name in ('images-32', 'images-3', 'images-320', 'cifar10-32'):
    keep(tmp_path, name, a, 1)
  # Of an earlier version, and of processes that were killed.
  (tmp_path / '.fedu_jax-images-32.npz').touch()
  (tmp_path / f'.fedu_jax-images-32-{a}.123.part').touch()
  (tmp_path / f'.fedu_jax-images-320-{a}.123.part').touch()
  assert keep(tmp_path, 'images-32', a, 2) == 1
  assert keep(tmp_path, 'images-32', b, 2) == 2
  assert cached(tmp_path) == [
      f'.fedu_jax-cifar10-32-{a}.npz', f'.fedu_jax-images-3-{a}.npz',
      f'.fedu_jax-images-32-{b}.npz', f'.fedu_jax-images-320-{a}.123.part',
      f'.fedu_jax-images-320-{a}.npz']


def test_what_a_living_process_writes_or_reads_stays(tmp_path):
  a, b = 'a' * 16, 'b' * 16
  part = tmp_path / f'.fedu_jax-images-32-{a}.123.part'
  with durable_files.held(part):
    keep(tmp_path, 'images-32', b, 1)
    assert part.exists()

  class Read(NamedTuple):
    images: object
  late = decoded_cache.mapped(tmp_path, 'images-32', b, Read, lambda: 1 / 0,
                              lambda _: True)
  keep(tmp_path, 'images-32', a, 2)
  assert cached(tmp_path) == [f'.fedu_jax-images-32-{a}.npz']
  np.testing.assert_array_equal(np.asarray(late.images), [1, 1, 1])


def test_what_is_kept_is_found_after_the_folder_was_closed(
    tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'user'))
  data = tmp_path / 'data'
  data.mkdir()
  a, b = 'a' * 16, 'b' * 16
  keep(data, 'images-32', a, 1)
  data.chmod(0o555)
  assert keep(data, 'images-32', a, 2) == 1
  assert keep(data, 'images-32', b, 2) == 2  # in the user's cache
  data.chmod(0o755)
  assert keep(data, 'images-32', a, 3) == 1  # which could not be removed
  c = 'c' * 16
  keep(data, 'images-32', c, 3)
  found = [path.name for path in tmp_path.rglob('.fedu_jax-*')]
  assert found == [f'.fedu_jax-images-32-{c}.npz']


def write(root, content, times=None):
  root.mkdir(parents=True, exist_ok=True)
  path = root / 'toy-train.array_record-00000-of-00001'
  path.write_bytes(bytes([content]) * 8)
  if times:
    os.utime(path, ns=times)
  found = path.stat()
  return found.st_atime_ns, found.st_mtime_ns


@pytest.mark.parametrize('mode', [0o555, 0o755])
@pytest.mark.parametrize('lazy', [False, True])
def test_a_tfds_set_that_was_replaced_is_read_again(
    tmp_path, monkeypatch, mode, lazy):
  """The names, sizes and content times of its files are unchanged."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'user'))

  def find(name, data_dir):
    split = types.SimpleNamespace(num_examples=2)
    return types.SimpleNamespace(
        name=name, data_path=data_dir,
        info=types.SimpleNamespace(splits={'train': split, 'test': split}))

  def read(builder, image_size, lazy):
    del image_size, lazy
    path, = pathlib.Path(builder.data_path).glob('*record*')
    images = np.full((2, 4, 4, 3), path.read_bytes()[0], np.uint8)
    return images, np.arange(2), images, np.arange(2)
  monkeypatch.setattr(tfds_reader, 'find', find)
  monkeypatch.setattr(tfds_reader, 'read', read)
  root, other = tmp_path / 'a', tmp_path / 'b'

  def pixel(root, lazy=lazy):
    root.chmod(mode)
    data = sources.load('tfds:toy', data_dir=str(root), lazy=lazy)
    root.chmod(0o755)
    return data.train_images[0, 0, 0, 0]
  times = write(root, 7)
  assert pixel(root, lazy=False) == 7
  write(root, 9, times)
  assert pixel(root) == 9
  write(other, 5, times)  # another folder, which looks the same
  assert pixel(other) == 5 and pixel(root) == 9


def test_a_touched_image_leaves_one_file(tmp_path):
  (tmp_path / 'a').mkdir()
  path = tmp_path / 'a' / '0.png'
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
  for image_size in (8, 16):
    sources.load(f'folder:{tmp_path}', image_size=image_size)
  before = cached(tmp_path)
  os.utime(path, ns=(0, 0))
  sources.load(f'folder:{tmp_path}', image_size=8)
  after = cached(tmp_path)
  assert len(before) == len(after) == 2 and before != after
  assert [re.findall('images-[0-9]+', name) for name in before] == [
      re.findall('images-[0-9]+', name) for name in after]
