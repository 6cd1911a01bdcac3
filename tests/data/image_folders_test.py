"""Folders of images: which files are read, which are not, and the report."""

import os

import numpy as np
from PIL import Image
import pytest

from fedu_jax.data import decoding_threads
from fedu_jax.data import image_files
from fedu_jax.data import optional_readers
from fedu_jax.data import reading_report
from fedu_jax.data import sources
from fedu_jax.runtime.errors import BadInput
from tests.helpers.deep_png import deep_png

PIXELS = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8)


def put(path, pixels=PIXELS, kind=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, kind)


@pytest.fixture
def root(tmp_path):
  """Makes two clients of two images each."""
  for name in ('a/0.png', 'a/1.png', 'b/0.png', 'b/1.png'):
    put(tmp_path / 'data' / name)
  return tmp_path / 'data'


def load(root, **more):
  return sources.load(f'folder:{root}', **({'image_size': 8} | more))


def said(root, **more):
  return '\n'.join(reading_report.lines(load(root, **more).files))


# --- what is passed over -----------------------------------------------------


@pytest.fixture
def no_extras(monkeypatch):
  """Makes the readers of extras absent."""
  with monkeypatch.context() as patch:
    patch.setattr(optional_readers, '_is_installed', lambda _: False)
    image_files._extensions.cache_clear()
    yield
  image_files._extensions.cache_clear()


@pytest.mark.usefixtures('no_extras')
def test_one_line_says_what_was_read_and_what_was_not(root):
  for name in ('x.HEIC', 'x.dcm', 'y.dcm', 'x.jxl', 'x.svg', 'x.mp4'):
    (root / 'a' / name).write_bytes(b'something')
  (root / 'b' / 'damaged.png').write_bytes(b'no image')
  put(root / 'loose.png')
  data = load(root)
  assert reading_report.lines(data.files)[:1] == [
      'data: read 4 of 12 files at 8 pixels; not read: 2 .dcm, 1 .heic, 1 .jxl,'
      " 1 .mp4, 1 .svg, 1 in no client's folder; skipped 1 that cannot be read:"
      ' b/damaged.png (no image of a kind that is read); skipped.json names '
      'each']
  assert len(data.skipped) == 8
  assert 'a/x.HEIC (.heic is not a format that is read)' in data.skipped
  assert "loose.png (in no client's folder)" in data.skipped
  assert data.files.summary()['not_read']['.dcm'] == 2


@pytest.mark.parametrize('name', ['x.pdf', 'x.eps', 'x.h5', 'x.mpg', 'x.psd'])
def test_formats_that_pillow_knows_and_we_do_not_read_are_counted(root, name):
  """They do not count as damaged, so several hosts need not refuse them."""
  (root / 'a' / name).write_bytes(b'something')
  for lazy in (False, True):
    assert load(root, lazy=lazy).files.files == {name[1:]: 1}


def test_the_default_size_is_said(root):
  assert 'at 32 pixels (the default: data.image_size is 0)' in said(
      root, image_size=0)
  assert said(root) == 'data: read 4 of 4 files at 8 pixels'


@pytest.mark.parametrize('where', ['', 'a', 'a/2021/03'])
def test_folders_of_systems_are_passed_over_at_any_depth(root, where):
  names = ('.ipynb_checkpoints', '.Trash-1000', '@eaDir', '__MACOSX', '.git',
           '.thumbnails', '$RECYCLE.BIN', 'System Volume Information',
           'lost+found', '#recycle', '.AppleDouble', '@Recycle')
  put(root / 'a' / '2021' / '03' / 'x.png')
  for name in names:
    put(root / where / name / 'x.png')
  for name in ('._0.png', 'Thumbs.db', 'desktop.ini', '.DS_Store'):
    (root / 'a' / name).write_bytes(b'\0\5\x16\7')
  data = load(root)
  assert data.owner_names == ('a', 'b') and len(data.train_images) == 5
  assert sum(data.files.folders.values()) == len(names)
  assert len(data.skipped) == len(names) + 4
  assert data.files.total == 9


def test_what_has_no_extension_is_told_by_its_first_bytes(root):
  put(root / 'a' / 'image', kind='JPEG')
  put(root / 'a' / '1.2.840.10008', kind='PNG')
  (root / 'a' / 'README').write_text('no image at all, but text')
  (root / 'a' / 'short').write_bytes(b'\xff\xd8')
  (root / 'a' / 'empty').touch()
  os.mkfifo(root / 'a' / 'pipe')
  data = load(root)
  assert data.files.read == 6 and data.files.total == 10
  assert 'a/pipe (without an extension, and no image)' in data.skipped


def test_names_that_are_no_text(root):
  name = os.fsdecode(b'\xff\xfe')
  put(root / name / f'{name}.png')
  (root / 'a' / f'{name}.{name}').write_bytes(b'x')
  (root / 'a' / 'new\nline.txt').write_bytes(b'x')
  assert load(root).files.read == 5
  assert all(x.isprintable() for x in (*load(root).skipped,
                                       *reading_report.lines(load(root).files)))


# --- links -------------------------------------------------------------------


def test_links_to_folders_are_followed_once(root, tmp_path):
  put(tmp_path / 'archive' / '2021' / 'x.png')
  (tmp_path / 'archive' / '2021' / 'back').symlink_to(tmp_path / 'archive')
  (root / 'a' / 'old').symlink_to(tmp_path / 'archive')
  (root / 'a' / 'again').symlink_to(tmp_path / 'archive' / '2021')
  (root / 'a' / 'up').symlink_to(root)
  (root / 'a' / 'self').symlink_to(root / 'a' / 'self' / '..')
  (root / 'a' / 'self').unlink()
  (root / 'a' / 'here').symlink_to('.')
  (root / 'b' / 'other').symlink_to(root / 'a')
  (root / 'c').symlink_to(tmp_path / 'archive' / '2021')
  data = load(root)
  # c is a client of its own; a's own links are read where they first lead.
  assert data.owner_names == ('a', 'b', 'c')
  assert data.owners.tolist() == [0, 0, 1, 1, 2]
  assert sum(data.files.folders.values()) == len(data.skipped) >= 5


def test_a_folder_that_is_linked_to_is_read(root, tmp_path):
  put(tmp_path / 'archive' / 'deep' / 'x.png')
  (root / 'a' / 'old').symlink_to(tmp_path / 'archive')
  assert load(root).owners.tolist() == [0, 0, 0, 1, 1]


def test_clients_that_are_links_to_one_folder_are_named(root):
  (root / 'c').symlink_to('a')
  data = load(root)
  assert data.owners.tolist() == [0, 0, 1, 1, 2, 2]
  assert 'links to the folder of another, and have the same images: c' in said(
      root)


@pytest.mark.parametrize('name', ['c', 'a/old', 'a/x.txt'])
def test_a_link_to_nowhere_is_refused(root, name):
  (root / name).symlink_to('/nowhere')
  with pytest.raises(BadInput, match=f'{name} cannot be read .No such file'):
    load(root)


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('name', ['.', 'a', 'a/2021', 'a/2021/03'])
def test_a_folder_that_cannot_be_listed_is_refused(
    root, monkeypatch, name, lazy):
  put(root / 'a' / '2021' / '03' / 'x.png')
  scandir = os.scandir

  def refuse(path):
    if os.path.samefile(path, root / name):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)
  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(BadInput, match='cannot be read .Permission denied') as e:
    load(root, lazy=lazy)
  assert str(root / name) in str(e.value)
  assert str(e.value).endswith('get the right to read it, or remove it')


def test_a_thousand_folders_in_one_another(root):
  """The path has the longest length of the system, and no stack overflows."""
  deep = root / 'a' / '/'.join('d' * 1000)
  before = os.getcwd()
  try:
    os.chdir(root / 'a')
    for _ in range(1000):
      os.mkdir('d')
      os.chdir('d')
  finally:
    os.chdir(before)
  put(deep / 'x.png')
  try:
    assert load(root).files.read == 5
  finally:  # pytest's own removal would overflow
    (deep / 'x.png').unlink()
    for path in (deep, *deep.parents[:999]):
      path.rmdir()


# --- tests and what is left out ----------------------------------------------


def test_a_folder_named_like_a_test_is_told_and_can_be_left_out(root):
  for name in ('Test/0.png', 'a/val/x.png'):
    put(root / name)
  data = load(root)
  assert data.owner_names == ('Test', 'a', 'b')
  assert ('named like a test split are trained on: Test, a/val; to leave them '
          'out, set --config.data.leave_out=Test,val') in said(root)
  for leave_out in ('Test,val', 'Test, val', 'Te*,a/val/'):
    data = load(root, leave_out=leave_out)
    assert data.owner_names == ('a', 'b') and data.files.read == 4
    assert 'passed over: 2 left out by data.leave_out' in said(
        root, leave_out=leave_out)
  (root / 'b' / 'more').symlink_to(root / 'Test')
  assert load(root, leave_out='Test,val').files.read == 4
  with pytest.raises(BadInput, match="names 'tset', and no folder"):
    load(root, leave_out='tset')
  with pytest.raises(BadInput, match='leave_out is set, which is for folder'):
    sources.load('digits', leave_out='test')


@pytest.mark.parametrize('name, like', [
    ('test', True), ('VAL', True), ('val2017', True), ('Test Set', True),
    ('test_images', True), ('x_val', True), ('held-out', True),
    ('hold_out', True), ('train', False), ('hold', False), ('valley', False),
    ('latest', False), ('test patient 7', False), ('2017', False)])
def test_what_is_called_like_a_test_split(root, name, like):
  put(root / name / '0.png')
  assert load(root).files.tests == (name,) * like


def test_a_folder_with_brackets_is_left_out_by_its_name(root):
  put(root / '[old]' / '0.png')
  assert load(root, leave_out='[old]').owner_names == ('a', 'b')


@pytest.mark.usefixtures('no_extras')
def test_a_client_without_images_is_refused_with_what_is_there(root):
  with pytest.raises(BadInput, match="no folders.*in it: 2 in no client's"):
    load(root / 'a')
  (root / 'c').mkdir()
  (root / 'c' / 'x.HEIC').write_bytes(b'x')
  with pytest.raises(BadInput, match='c has no images.*in it: 1 .heic'):
    load(root)


# --- deep images -------------------------------------------------------------


RAMP = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)


@pytest.mark.parametrize('lazy', [False, True])
def test_one_depth_for_all_images_of_a_client(root, lazy):
  """A dark image stays dark. Another client has a depth of its own."""
  put(root / 'a' / '2.png', RAMP)
  put(root / 'a' / '3.tif', RAMP // 16)
  put(root / 'b' / '2.png', RAMP * 16)
  images = np.asarray(load(root, lazy=lazy).train_images)
  np.testing.assert_array_equal(images[2, ..., 0], RAMP >> 4)
  np.testing.assert_array_equal(images[3, ..., 0], RAMP // 16 >> 4)
  np.testing.assert_array_equal(images[6, ..., 0], RAMP >> 4)
  np.testing.assert_array_equal(images[0], PIXELS)
  if not lazy:
    assert 'read as of 12 bits in a, 16 bits in b' in said(root)


@pytest.mark.parametrize('depth, want', [
    (12, RAMP >> 4), (16, RAMP >> 8), (10, np.minimum(RAMP >> 2, 255))])
def test_a_depth_can_be_set(root, depth, want):
  put(root / 'a' / '2.png', RAMP)
  data = load(root, depth=depth)
  np.testing.assert_array_equal(data.train_images[2, ..., 0], want)
  assert not data.files.bits


@pytest.mark.parametrize('kind, channels', [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits_keep_their_range_too(root, kind, channels):
  """Pillow keeps only the high byte of these, which is nearly empty."""
  values = np.repeat(RAMP[..., None], channels, -1)
  if channels in (2, 4):
    values[..., -1] = 65535  # not transparent, and no colour
  (root / 'a' / '2.png').write_bytes(deep_png(values, kind))
  np.testing.assert_array_equal(
      load(root).train_images[2], np.repeat((RAMP >> 4)[..., None], 3, -1))
  (root / 'a' / '2.png').write_bytes(deep_png(values * 16, kind))
  np.testing.assert_array_equal(
      load(root).train_images[2], np.repeat((RAMP >> 4)[..., None], 3, -1))


def test_formats_that_say_their_depth_are_believed(root):
  """A PGM with a maximum of 4095 is dark if its values are small."""
  (root / 'a' / '2.pgm').write_bytes(
      b'P5 8 8 4095\n' + (RAMP // 4).astype('>u2').tobytes())
  np.testing.assert_allclose(
      load(root).train_images[2, ..., 0], RAMP // 64, atol=1)


@pytest.mark.parametrize('pixels', [
    RAMP.astype(np.float32), RAMP.astype(np.int32) << 12])
def test_floats_and_more_than_sixteen_bits_are_reported(root, pixels):
  put(root / 'a' / '2.tif', pixels)
  line, = load(root).files.damaged
  assert line == 'a/2.tif (neither 8 nor 16 bits)'


# --- shapes ------------------------------------------------------------------


def test_a_panorama_is_cropped_or_padded(root):
  wide = np.full((10, 100, 3), 200, np.uint8)
  wide[:, 40:60] = 0
  put(root / 'a' / '2.png', wide)
  put(root / 'a' / '3.png', wide.transpose(1, 0, 2))
  put(root / 'a' / '4.png', wide[:1])
  cropped = load(root, image_size=20)
  assert not cropped.train_images[2].any()
  assert 'more than half of 3 long images is cropped' in said(root)
  padded = load(root, image_size=20, fit='pad').train_images
  assert (padded[2, 9:11, :7] == 200).all()
  assert (padded[3, :7, 9:11] == 200).all() and padded[4].any()
  assert not padded[2, :9].any() and not padded[2, 11:].any()
  assert 'long' not in said(root, fit='pad')


def test_pages_that_are_not_read_are_told(root):
  Image.fromarray(PIXELS).save(
      root / 'a' / '2.tif', save_all=True,
      append_images=[Image.fromarray(255 - PIXELS)])
  for name in ('3.gif', '4.webp'):
    Image.fromarray(PIXELS).save(
        root / 'a' / name, save_all=True, duration=100,
        append_images=[Image.fromarray(255 - PIXELS)])
  np.testing.assert_array_equal(load(root).train_images[2], PIXELS)
  for _ in range(2):  # decoded, and from the cache
    assert 'of 3 files with several pages or frames the first is' in said(root)


# --- threads -----------------------------------------------------------------


def test_threads_keep_the_order_and_tell_how_far_they_are(
    root, monkeypatch):
  monkeypatch.setattr(decoding_threads, '_threads', lambda: 7)
  monkeypatch.setattr(decoding_threads, '_AHEAD', 2)
  for i in range(50):
    if i % 7 == 3:
      (root / 'b' / f'x{i:02}.png').write_bytes(b'damaged')
    else:
      put(root / 'b' / f'x{i:02}.png', np.full((8, 8, 3), i, np.uint8))
  calls = []
  data = load(root, progress=lambda *x: calls.append(x))
  assert data.train_images[4:, 0, 0, 0].tolist() == [
      i for i in range(50) if i % 7 != 3]
  assert [x[:11] for x in data.files.damaged] == [
      f'b/x{i:02}.png (' for i in range(3, 50, 7)]
  assert calls == [(i, 54) for i in range(55)]


def test_large_images_wait_for_room(monkeypatch):
  monkeypatch.setattr(image_files, '_MOST_PIXELS', 100)
  with image_files._room(60):
    with image_files._changed:
      assert image_files._pixels == 60
    with image_files._room(40):
      assert image_files._pixels == 100
  with image_files._room(1000):  # alone, one of any size is let in
    pass
  assert image_files._pixels == 0


# --- clients at other depths -------------------------------------------------


@pytest.fixture
def sites(tmp_path):
  """Makes two hospitals, each with two wards; images at several depths."""
  for name in ('x.png', 'a/x.png', 'a/1/0.png', 'a/1/2021/1.png', 'a/2/0.png',
               'b/1/0.png', 'b/3/2021/0.png', 'b/3/2021/1.png'):
    put(tmp_path / 'sites' / name)
  return tmp_path / 'sites'


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('depth, names, counts', [
    ('1', ['a', 'b'], [4, 3]),
    ('2', ['a/1', 'a/2', 'b/1', 'b/3'], [2, 1, 1, 2]),
    ('3', ['a/1/2021', 'b/3/2021'], [1, 2]),
    ('leaf', ['a', 'a/1', 'a/1/2021', 'a/2', 'b/1', 'b/3/2021'],
     [1, 1, 1, 1, 1, 2])])
def test_clients_folders_may_be_deeper(sites, depth, names, counts, lazy):
  data = load(sites, client_depth=depth, lazy=lazy)
  assert list(data.owner_names) == names
  assert np.bincount(data.owners).tolist() == counts
  above = 8 - sum(counts)
  assert data.files.files == {"in no client's folder": above}
  assert len(np.asarray(data.train_images)) == sum(counts)


def test_without_clients_at_a_depth_a_folder_is_refused(sites):
  for depth in ('4', '9'):
    with pytest.raises(BadInput, match='no folders that are read at data.client'
                       f'_depth={depth};.*8 in no cl.*set data.client_depth'):
      load(sites, client_depth=depth)
  for name in ('x.png', 'a', 'b'):
    (sites / name).rename(sites.parent / f'old {name}')
  put(sites / 'x.png')
  with pytest.raises(BadInput, match='no folders that are read.*1 in no cl'):
    load(sites, client_depth='leaf')
  with pytest.raises(BadInput, match='client_depth is set, which is for fold'):
    sources.load('digits', client_depth='2')


def test_links_between_sites_are_followed_once(sites):
  (sites / 'b' / '4').symlink_to(sites / 'a' / '2')
  (sites / 'c').symlink_to(sites)
  data = load(sites, client_depth='2')
  assert list(data.owner_names) == ['a/1', 'a/2', 'b/1', 'b/3', 'b/4']
  assert data.files.twice == ('b/4',)
  assert data.files.folders == {'link to a folder that holds it': 1}
  data = load(sites, client_depth='leaf')
  assert 'b/4' not in data.owner_names
  assert sum(data.files.folders.values()) == 2


def test_folders_are_left_out_at_each_depth(sites):
  data = load(sites, client_depth='2', leave_out='b,2021')
  assert list(data.owner_names) == ['a/1', 'a/2']
  assert data.owners.tolist() == [0, 1]
