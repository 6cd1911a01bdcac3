"""The cache of a folder: killed, resumed, shared, damaged, and without room."""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
from PIL import Image
import pytest

from fedu_jax.data import decoding_threads
from fedu_jax.data import folder_cache
from fedu_jax.data import image_folders
from fedu_jax.data import lazy_arrays
from fedu_jax.data import resumable_decoding
from fedu_jax.data import row_file
from fedu_jax.data import sources
from fedu_jax.data.decoding_journal import Journal
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput

DRAW = np.random.RandomState(0)
COUNT = 40  # files
DAMAGED = sum(i % 7 == 3 for i in range(COUNT))
# Files that are decoded twice, because their depth is not known at first.
DEEP = sum(i % 5 == 2 and i % 7 != 3 for i in range(COUNT))


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
  """Blocks of four files, which a test's few files fill, however long."""
  monkeypatch.setattr(resumable_decoding, '_SECONDS', float('inf'))
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


def one_thread(monkeypatch):
  """Decodes one after the other, with hardly any in the queue."""
  monkeypatch.setattr(decoding_threads, '_threads', lambda: 1)
  monkeypatch.setattr(decoding_threads, '_AHEAD', 1)


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
  one_thread(monkeypatch)
  with monkeypatch.context() as patch:
    counting(patch, dies_at)
    with pytest.raises(Killed):
      load(root)
  assert files(root) == ['.npy.journal', '.npy.part']
  names, calls, said = counting(monkeypatch), [], []
  same(load(root, progress=lambda *x: calls.append(x), say=said.append), want)
  done = (dies_at - 1) // 4 * 4  # whole blocks
  assert len(names) == COUNT + DEEP - done
  path, = root.glob('.fedu_jax-*')
  assert path.read_bytes() == content
  assert calls[-1] == (COUNT, COUNT)
  assert said == ([f'data: {min(done, COUNT)} of {COUNT} files were decoded by '
                   'an earlier start'] if done else [])


def test_a_block_ends_after_a_time_too(root, tmp_path, monkeypatch):
  """Where files take long, a kill loses those of the last moments."""
  want, content = whole(root, tmp_path)
  monkeypatch.setattr(resumable_decoding, '_FILES', 1000)
  monkeypatch.setattr(resumable_decoding, '_SECONDS', 0)
  one_thread(monkeypatch)
  with monkeypatch.context() as patch:
    counting(patch, 15)
    with pytest.raises(Killed):
      load(root)
  names = counting(monkeypatch)
  same(load(root), want)
  assert COUNT + DEEP - 14 <= len(names) <= COUNT + DEEP - 12
  path, = root.glob('.fedu_jax-*')
  assert path.read_bytes() == content


def test_a_process_that_is_killed_loses_a_block_at_most(
    root, tmp_path, monkeypatch):
  """A real SIGKILL, in the middle of a file."""
  want, content = whole(root, tmp_path)
  with subprocess.Popen([sys.executable, '-c', _SLOW, str(root)]) as child:
    while len(b''.join(path.read_bytes() for path in root.glob(
        '.fedu_jax-*.journal')).splitlines()) < 5:
      assert child.poll() is None
      time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
  names = counting(monkeypatch)
  same(load(root), want)
  assert len(names) <= COUNT + DEEP - 16  # four blocks and the line before them
  path, = root.glob('.fedu_jax-*')
  assert path.read_bytes() == content


# Decodes as the program does, but slowly.
_SLOW = '''
import sys, time
from fedu_jax.data import image_folders, resumable_decoding, sources
decode, resumable_decoding._FILES = image_folders.decode, 4
image_folders.decode = lambda *x: (time.sleep(0.02), decode(*x))[1]
sources.load('folder:' + sys.argv[1], image_size=8)
'''


def test_after_a_change_all_is_decoded_again(root, tmp_path, monkeypatch):
  """What was decoded before the change may be of another content."""
  with monkeypatch.context() as patch:
    counting(patch, 30)
    with pytest.raises(Killed):
      load(root)
  Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(root / 'a' / '00.png')
  names = counting(monkeypatch)
  data = load(root)
  assert (data.train_images[0] == 7).all()
  assert len(names) == COUNT + DEEP and files(root) == ['.npy']


def test_two_that_start_at_once_decode_once(root, monkeypatch):
  names, said, found = counting(monkeypatch), [], []
  threads = [threading.Thread(target=lambda: found.append(
      load(root, say=said.append))) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  same(*found)
  assert len(names) == COUNT + DEEP and files(root) == ['.npy']
  assert said in ([], [f'data: another process decodes data.source folder: '
                       f'{root}: waiting for it'])


def cut(content):
  return content[:len(content) // 2]


def bent(content):
  """Changes a byte in the middle."""
  at = len(content) // 2
  return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


@pytest.mark.parametrize('ending', ['journal', 'part'])
@pytest.mark.parametrize('harm', [cut, bent, lambda x: b'', lambda x: b'junk'])
def test_of_a_damaged_start_what_is_sound_is_used(
    root, tmp_path, monkeypatch, ending, harm):
  want, content = whole(root, tmp_path)
  with monkeypatch.context() as patch:
    counting(patch, COUNT + 6)
    with pytest.raises(Killed):
      load(root)
  path, = root.glob(f'.fedu_jax-*.{ending}')
  path.write_bytes(harm(path.read_bytes()))
  names = counting(monkeypatch)
  same(load(root), want)
  # Of what was cut or bent in the middle, the first half is used.
  least = COUNT + DEEP if len(harm(b'x' * 99)) < 9 else COUNT // 4
  assert least <= len(names) <= COUNT + DEEP
  if harm in (cut, bent):
    assert len(names) < COUNT
  path, = root.glob('.fedu_jax-*')
  assert path.read_bytes() == content


def test_of_a_journal_the_entries_before_the_first_damage_count(tmp_path):
  path, about = tmp_path / 'journal', {'files': 9}
  path.touch()

  def entries(about=about):
    with contextlib.closing(Journal(path, about, lasting=True)) as journal:
      return journal.entries
  with contextlib.closing(Journal(path, about, lasting=True)) as journal:
    for i in range(4):
      journal.add({'files': i})
  whole = path.read_bytes()
  assert entries() == [{'files': i} for i in range(4)]
  lines = whole.splitlines(keepends=True)
  path.write_bytes(b''.join([*lines[:3], bent(lines[3]), lines[4]]))
  assert entries() == [{'files': 0}, {'files': 1}]
  path.write_bytes(whole[:-1])  # killed before the last byte
  assert entries() == [{'files': 0}, {'files': 1}, {'files': 2}]
  path.write_bytes(whole)
  assert entries({'files': 8}) == [] and entries() == []


def no_room(monkeypatch, free):
  monkeypatch.setattr(folder_cache.shutil, 'disk_usage', lambda _: (
      types.SimpleNamespace(free=free)))


def test_without_room_images_are_decoded_into_memory(
    root, tmp_path, monkeypatch):
  want, _ = whole(root, tmp_path)
  no_room(monkeypatch, 10**4)
  said, names = [], counting(monkeypatch)
  same(load(root, say=lambda text: said.append((text, len(names)))), want)
  (line, before), = said
  assert before == 0 and files(root) == []
  assert line == (
      f'data: the decoded images cannot be kept ({root}: 8.3e-05 GB are needed '
      'there, and 1e-05 GB are free); they are decoded into memory, and again '
      'at the next start')
  monkeypatch.setattr(host_memory, 'free_bytes', lambda: 7000)
  with pytest.raises(BadInput, match=(
      r'at 8 pixels takes 7.7e-06 GB, which neither fits memory .7e-06 GB '
      'free. nor can be kept .*: make room, or')):
    load(root)
  assert len(names) == COUNT + DEEP


@pytest.mark.parametrize('writes', [0, 3, 12, 14])
def test_a_disk_that_becomes_full_loses_nothing(
    root, tmp_path, monkeypatch, writes):
  """What is decoded is read back, and the rest is decoded into memory."""
  want, content = whole(root, tmp_path)
  write, done = row_file.Part.write, []

  def fail(self, *x):
    done.append(x)
    if len(done) > writes:
      raise OSError(28, 'No space left on device')
    write(self, *x)
  one_thread(monkeypatch)
  names, said = counting(monkeypatch), []
  with monkeypatch.context() as patch:
    patch.setattr(row_file.Part, 'write', fail)
    same(load(root, say=said.append), want)
  assert len(said) == 1 and 'No space left on device' in said[0]
  again = 4 + 2  # a block, and what waits in the queue of the thread
  assert COUNT + DEEP <= len(names) <= COUNT + DEEP + again
  names.clear()
  same(load(root), want)  # the next start goes on, and keeps the cache
  path, = root.glob('.fedu_jax-*')
  assert path.read_bytes() == content
  assert len(names) <= COUNT + DEEP - 4 * min(writes, 10)


def test_images_that_are_skipped_late_leave_no_gap(root, monkeypatch):
  """They have no depth at first, and are damaged when it is known."""
  decode = image_folders.decode

  def fail(path, how, bits=0):
    if bits and path.name in ('12.png', '37.png'):
      raise image_folders.Unreadable('late')
    return decode(path, how, bits)
  before = load(root, image_size=9)
  monkeypatch.setattr(image_folders, 'decode', fail)
  data = load(root, image_size=9)  # from the cache
  same(before, data)
  for path in root.glob('.fedu_jax-*'):
    path.unlink()
  data = load(root, image_size=9)
  late = ['a/12.png (late)', 'b/37.png (late)']
  assert set(data.skipped) == {*before.skipped, *late}
  names = [f'{"ab"[i % 2]}/{i:02}.png' for i in sorted(
      range(COUNT), key=lambda i: (i % 2, i)) if i % 7 != 3]
  kept = [i for i, name in enumerate(names) if f'{name} (late)' not in late]
  np.testing.assert_array_equal(data.train_images, before.train_images[kept])
  np.testing.assert_array_equal(data.owners, before.owners[kept])


def test_large_caches_stay_on_disk_and_damage_is_noticed(root, monkeypatch):
  small = load(root)
  monkeypatch.setattr(folder_cache, '_LARGE', 0)
  large = load(root)
  assert isinstance(small.train_images, np.ndarray)
  assert isinstance(large.train_images, lazy_arrays.Lazy)
  same(small, large)
  np.testing.assert_array_equal(large.train_images[[5, 2, 3]],
                                small.train_images[[5, 2, 3]])
  path, = root.glob('.fedu_jax-*')
  # The file is a plain npy file too.
  np.testing.assert_array_equal(np.load(path, mmap_mode='r'),
                                small.train_images)
  for harm in (bent, lambda x: x[:4000]):
    data = load(root)
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    with pytest.raises(BadInput, match='damaged and is now removed: start'):
      data.train_images[:]
    assert not path.exists()
    same(load(root), small)


def test_rows_are_written_in_blocks(root, monkeypatch):
  """So memory does not grow with the number of files."""
  monkeypatch.undo()
  monkeypatch.setattr(resumable_decoding, '_BLOCK', 5 * 8 * 8 * 3)
  write, rows = row_file.Part.write, []
  monkeypatch.setattr(row_file.Part, 'write', lambda self, first, x: (
      rows.append(len(x)), write(self, first, x))[1])
  load(root)
  assert max(rows) <= 5 and sum(rows) == COUNT - DAMAGED + DEEP


def test_no_image_of_a_large_cache_is_read_when_it_is_opened(root, monkeypatch):
  load(root)
  monkeypatch.setattr(folder_cache, '_LARGE', 0)
  monkeypatch.setattr(row_file, 'sum_of', lambda row: 1 / 0)
  images = load(root, max_examples=3).train_images
  assert images.shape == (3, 8, 8, 3)
  with pytest.raises(ZeroDivisionError):
    images[0]
