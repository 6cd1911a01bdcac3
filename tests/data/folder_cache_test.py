"""The cache of a folder: killed, resumed, shared, damaged, and without room."""

import shutil

import numpy as np
from PIL import Image
import pytest

from fedu_jax.data import image_folders
from fedu_jax.data import resumable_decoding
from fedu_jax.data import sources

DRAW = np.random.RandomState(0)
COUNT = 40  # files; some are damaged, and some are deep


@pytest.fixture
def root(tmp_path):
  """Two clients; every seventh file is damaged, and every fifth has 12 bits."""
  for i in range(COUNT):
    path = tmp_path / 'data' / 'ab'[i % 2] / f'{i:02}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    if i % 7 == 3:
      path.write_bytes(b'damaged')
    elif i % 5 == 2:
      Image.fromarray(DRAW.randint(0, 4096, (8, 8)).astype(np.uint16)
                      ).save(path)
    else:
      Image.fromarray(DRAW.randint(0, 256, (8, 8, 3)).astype(np.uint8)
                      ).save(path)
  return tmp_path / 'data'


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Blocks of four files, which a test's few files fill."""
  monkeypatch.setattr(resumable_decoding, '_FILES', 4)


def load(root, **more):
  return sources.load(f'folder:{root}', **({'image_size': 8} | more))


def files(root):
  return sorted(path.name.split('-')[-1][16:]
                for path in root.glob('.fedu_jax-*'))


def same(a, b):
  np.testing.assert_array_equal(np.asarray(a.train_images),
                                np.asarray(b.train_images))
  np.testing.assert_array_equal(a.owners, b.owners)
  assert a.skipped == b.skipped and a.files == b.files


class Killed(BaseException):
  """Ends a process at once, as far as the code can see."""


def counting(monkeypatch, dies_at=0):
  """Counts decoded files; raises at the one of this number."""
  decode, names = image_folders.decode, []

  def count(path, *how):
    names.append(path.name)
    if len(names) == dies_at:
      raise Killed
    return decode(path, *how)
  monkeypatch.setattr(image_folders, 'decode', count)
  return names


def whole(root, tmp_path, **more):
  """What a folder gives at once, and the bytes of its cache."""
  other = tmp_path / 'other'
  shutil.copytree(root, other)
  for path in other.glob('.fedu_jax-*'):
    path.unlink()
  data = load(other, **more)
  path, = other.glob('.fedu_jax-*')
  return data, path.read_bytes()


@pytest.mark.parametrize('dies_at', [1, 6, 15, 30, 39, 42, 45])
def test_what_a_killed_start_has_decoded_is_not_decoded_again(
    root, tmp_path, monkeypatch, dies_at):
  """Up to file 40 all are decoded once; from there on, those of 12 bits."""
  want, content = whole(root, tmp_path)
  monkeypatch.setattr(resumable_decoding.decoding_threads, '_threads',
                      lambda: 1)
  monkeypatch.setattr(resumable_decoding.decoding_threads, '_AHEAD', 1)
  with monkeypatch.context() as patch:
    counting(patch, dies_at)
    with pytest.raises(Killed):
      load(root)
  assert files(root) == ['.npy.journal', '.npy.part']
  names, calls, said = counting(monkeypatch), [], []
  same(load(root, progress=lambda *x: calls.append(x), say=said.append), want)
  done = (dies_at - 1) // 4 * 4  # whole blocks
  assert len(names) == COUNT + 7 - done
  path, = root.glob('.fedu_jax-*')
  assert path.read_bytes() == content
  deep = sum(i % 5 == 2 and i % 7 != 3 for i in range(COUNT))
  assert deep == 7 and calls[-1] == (COUNT, COUNT)
  assert said == ([f'data: {min(done, COUNT)} of {COUNT} files were decoded by '
                   'an earlier start'] if done else [])
