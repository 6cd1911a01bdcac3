"""Labelled images of data.test: which are read, and which train probes."""

import errno
import pathlib

import numpy as np
from PIL import Image
import pytest

from fedu_jax.data import image_folders
from fedu_jax.data import labelled_images
from fedu_jax.data import sources
from fedu_jax.data.image_files import How
from fedu_jax.runtime.errors import BadInput

RANDOM = np.random.RandomState(0)


def put(path, seed=None):
  """Saves an image of its own; the first pixel is `seed`, if it is given."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = RANDOM.randint(0, 256, (8, 8, 3)).astype(np.uint8)
  if seed is not None:
    pixels[:] = seed
  Image.fromarray(pixels).save(path)
  return path


def read(test, trained=(), size=8):
  return labelled_images.read(test, How(size), trained, lambda *_: None,
                              lambda _: None)


@pytest.fixture
def root(tmp_path):
  """Makes 5 images of cats, deep below, and 4 of dogs; pixels tell which."""
  for i in range(5):
    put(tmp_path / 'classes' / 'cats' / 'x' / 'y' / f'{i}.png', 10 + i)
  for i in range(4):
    put(tmp_path / 'classes' / 'dogs' / f'{i}.png', 20 + i)
  return tmp_path / 'classes'


def seeds(images):
  return sorted(images[:, 0, 0, 0].tolist())


def test_each_class_is_split_in_halves(root):
  found = read(f'folder:{root}')
  assert np.bincount(found.probe_labels).tolist() == [3, 2]
  assert np.bincount(found.test_labels).tolist() == [2, 2]
  assert seeds(np.concatenate([found.probe_images, found.test_images])) == [
      10, 11, 12, 13, 14, 20, 21, 22, 23]
  for images, labels in ((found.probe_images, found.probe_labels),
                         (found.test_images, found.test_labels)):
    assert (labels == (images[:, 0, 0, 0] >= 20)).all()
    assert labels.dtype == np.int32
  assert found.lines == (
      'data.test: of 9 labelled images of 2 classes 5 train probes and 4 are '
      'scored; no encoder is trained on them',)
  again = read(f'folder:{root}')  # from the cache
  np.testing.assert_array_equal(again.test_images, found.test_images)
  put(root / 'eels' / '0.png', 30)
  put(root / 'eels' / '1.png', 31)
  more = read(f'folder:{root}')  # the halves of other classes stay
  assert seeds(more.test_images)[:4] == seeds(found.test_images)


def table(path, *lines):
  path.write_text('\n'.join(lines), encoding='utf-8-sig')
  return f'csv:{path}'


def test_a_csv_names_files_and_labels(root):
  lines = [f'cats/x/y/{i}.png, "a, b"' for i in range(4)] + [
      f'dogs/{i}.png,7' for i in range(4)]
  found = read(table(root / 'labels.csv', 'File , label', *lines))
  assert sorted(found.probe_labels) == [0, 0, 1, 1]
  assert (found.test_images[found.test_labels == 0] >= 20).all()  # 7 < 'a, b'
  splits = ['train'] * 3 + ['test'] + ['train', 'test', 'test', 'test']
  found = read(table(root / 'labels.csv', 'label,file,split', *(
      f'{i // 4},{line.split(",")[0]},{split}'
      for i, (line, split) in enumerate(zip(lines, splits)))))
  assert seeds(found.probe_images) == [10, 11, 12, 20]
  assert seeds(found.test_images) == [13, 21, 22, 23]


@pytest.mark.parametrize('lines, words', [
    ([], 'must begin with a line of names'),
    (['a.png,1'], "file and label; it begins with 'a.png, 1'"),
    (['file,label', 'dogs/0.png,'], 'no label in line 2'),
    (['file,label', ',1'], 'no file in line 2'),
    (['file,label', 'dogs/0.png,1', 'dogs/0.png,2'], 'two labels for dogs/0'),
    (['file,label', 'nowhere.png,1'], 'names no file that is there'),
    (['file,label,split', 'dogs/0.png,1,val'], "split 'val' in line 2"),
    (['file,label', 'dogs/0.png,1', 'dogs/1.png,1'], 'images of one class'),
    (['file,label', 'dogs/0.png,1', 'dogs/1.png,2'], 'no images to score on'),
    (['file,label,split', 'dogs/0.png,1,test', 'dogs/1.png,2,test'],
     'no images to train probes on')])
def test_a_csv_that_is_wrong_is_refused_in_a_line(root, lines, words):
  with pytest.raises(BadInput, match=words) as refusal:
    read(table(root / 'labels.csv', *lines))
  assert '\n' not in str(refusal.value)


def test_folders_that_are_wrong_are_refused_by_the_name_of_the_field(root):
  for test, words in ((f'csv:{root}', 'is no file'),
                      (f'folder:{root}/x', 'data.test folder: there is no'),
                      (f'folder:{root}/dogs', 'data.test folder: .*each class')
                      ):
    with pytest.raises(BadInput, match=words):
      read(test)
  (root / 'empty').mkdir()
  with pytest.raises(BadInput, match='data.test folder: .*empty has no images:'
                     ' add some, or remove it'):
    read(f'folder:{root}')


def test_poor_data_has_a_line_for_each_kind(root):
  put(root / 'eels' / '0.png', 30)
  put(root / 'dogs' / '9.png', 20)  # as dogs/0.png
  put(root / 'cats' / '9.png', 21)  # as dogs/1.png
  (root / 'dogs' / 'bad.png').write_bytes(b'no image')
  (root / 'dogs' / 'notes.txt').write_text('a text')
  trained = [root / 'cats' / 'x' / 'y' / '0.png',
             put(root.parent / 'z.png', 22)]
  found = read(f'folder:{root}', trained)
  assert seeds(np.concatenate([found.probe_images, found.test_images])) == [
      10, 11, 12, 13, 14, 20, 21, 22, 23, 30]
  assert found.lines[1:] == (
      'data.test: skipped 1 files that cannot be read: dogs/bad.png (no image '
      'of a kind that is read)',
      'data.test: 2 files have the content of another and are left out; 1 of '
      'them have another label than that one',
      'data.test: of these classes there is one image, which trains probes: '
      'eels',
      'data.test: 2 labelled images are also training images, so that scores '
      'may be too high; data.leave_out leaves folders out of training')
  assert len(found.skipped) == 4 and all(
      x.startswith('data.test: ') for x in found.skipped)
  test = table(root / 'labels.csv', 'file,label', 'dogs/0.png,1', 'no.png,1',
               'dogs/1.png,2', 'dogs/2.png,1', 'dogs/3.png,2')
  assert read(test).lines[1:] == (
      'data.test: 1 files of the CSV are not there: no.png',)


def test_a_csv_names_files_anywhere(root, tmp_path):
  """Those outside its folder are shown with their whole path."""
  (root / 'bad.png').write_bytes(b'no image')
  (root / 'again.png').write_bytes((root / 'dogs' / '0.png').read_bytes())
  (tmp_path / 'tables').mkdir()
  long = 'x' * 300
  found = read(table(
      tmp_path / 'tables' / 'labels.csv', 'file,label', f'{long},1',
      *(f'{root}/dogs/{i}.png,{i % 2}' for i in range(4)),
      f'{root}/bad.png,1', f'{root}/again.png,0', '../classes/bad.png,1'))
  assert len(found.probe_labels) == len(found.test_labels) == 2
  assert found.skipped == tuple(f'data.test: {x}' for x in (
      f'{root}/bad.png (no image of a kind that is read)',
      f'{long} (not there)',
      f'{root}/again.png (the same image as another)',
      '../classes/bad.png (the same image as another)'))


def test_what_the_system_denies_is_refused_in_a_line(root, monkeypatch):
  """Where a folder may not be searched, or a file not be read."""
  (root / 'bad.png').write_bytes(b'no image')
  denied = root / 'dogs'
  test = table(root / 'labels.csv', 'file,label', 'dogs/0.png,1', 'bad.png,2')
  is_file = pathlib.Path.is_file

  def deny(path):
    if denied in (path, path.parent):
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return is_file(path)
  monkeypatch.setattr(pathlib.Path, 'is_file', deny)
  with pytest.raises(BadInput, match='^[^:]*dogs/0.png cannot be read .Permis'):
    read(test)
  denied = root
  with pytest.raises(BadInput, match='labels.csv cannot be read .*denied'):
    read(test)


def test_a_csv_of_damaged_files_is_refused_by_the_name_of_the_field(root):
  (root / 'bad.png').write_bytes(b'no image')
  with pytest.raises(BadInput, match='^data.test: none of the 1 images .*'
                     'bad.png .*: repair them, or name other images$'):
    read(table(root / 'labels.csv', 'file,label', 'bad.png,1'))


def test_labelled_images_have_the_form_of_the_training_images(root, tmp_path):
  for i in range(4):
    put(tmp_path / 'sites' / str(i % 2) / f'{i}.png')
  (tmp_path / 'sites' / '0' / '5.png').write_bytes(
      (root / 'dogs' / '2.png').read_bytes())
  data = sources.load(f'folder:{tmp_path}/sites', channels=1, keep_depth=True,
                      test=f'folder:{root}')
  size = image_folders.DEFAULT_SIZE
  for images in (data.train_images, data.probe_images, data.test_images):
    assert images.shape[1:] == (size, size, 1) and images.dtype == np.uint16
  assert len(data.train_images) == 5 and data.train_labels is None
  assert '1 labelled images are also training images' in data.lines[-1]
  digits = sources.load('digits', test=f'folder:{root}', fit='pad')
  assert digits.probe_images.shape == (5, 8, 8, 3)
  assert len(digits.test_images) == 4 and len(digits.train_images) == 1438
  np.savez(tmp_path / 'a.npz', train_images=np.zeros((4, 6, 8), 'u1'))
  with pytest.raises(BadInput, match='become squares: set data.image_size'):
    sources.load(f'npz:{tmp_path}/a.npz', test=f'folder:{root}')
