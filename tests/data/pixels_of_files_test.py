"""Channels and depth: what the pixels of files and of arrays become."""

import struct

import numpy as np
from PIL import Image
import pytest

from fedu_jax.data import image_files
from fedu_jax.data import pixel_arrays
from fedu_jax.data import sources
from fedu_jax.runtime.errors import BadInput
from tests.helpers.deep_png import deep_png

RANDOM = np.random.RandomState(0)
COLOURS = RANDOM.randint(0, 256, (12, 20, 3)).astype(np.uint8)
DEEP = RANDOM.randint(0, 65536, (12, 20, 3)).astype(np.uint16)
RAMP = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)


def decoded(path, bits=0, **how):
  return image_files.decode(
      path, image_files.How(**({'size': 8} | how)), bits).pixels


def saved(path, pixels):
  path.parent.mkdir(exist_ok=True)
  Image.fromarray(pixels).save(path)
  return path


def triangle(values, size):
  """Resizes the last axis as Pillow's BILINEAR does, in float64."""
  scale = values.shape[-1] / size
  reach = max(scale, 1)
  centres = (np.arange(size) + 0.5) * scale
  distance = np.abs(np.arange(values.shape[-1]) + 0.5 - centres[:, None])
  weights = np.maximum(1 - distance / reach, 0)
  # A pixel counts if its centre is within the rounded bounds of the filter.
  low = np.maximum((centres - reach + 0.5).astype(int), 0)[:, None]
  high = (centres + reach + 0.5).astype(int)[:, None]
  column = np.arange(values.shape[-1])
  weights *= (low <= column) & (column < high)
  return values @ (weights / weights.sum(1, keepdims=True)).T


def reference(values, size):
  return triangle(triangle(values.astype(np.float64), size)
                  .swapaxes(-1, -2), size).swapaxes(-1, -2)


# --- files -------------------------------------------------------------------


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'CMYK', 'L', 'LA', '1'])
def test_one_channel_is_pillows_luma(tmp_path, mode):
  image = Image.fromarray(COLOURS[:8, :8]).convert(mode)
  path = tmp_path / ('x.tif' if mode == 'CMYK' else 'x.png')
  image.save(path)
  grey = decoded(path, channels=1)
  assert grey.shape == (8, 8, 1) and grey.dtype == np.uint8
  np.testing.assert_array_equal(
      grey[..., 0], np.asarray(image.convert('RGB').convert('L')))
  if mode in ('L', 'LA'):  # as it is
    np.testing.assert_array_equal(
        grey[..., 0], np.asarray(image.getchannel(0)))


@pytest.mark.parametrize('fit', image_files.FITS)
@pytest.mark.parametrize('channels', [1, 3])
def test_files_of_eight_bits_become_their_value_times_257(
    tmp_path, fit, channels):
  path = saved(tmp_path / 'x.png', COLOURS)
  how = {'fit': fit, 'channels': channels}
  deep = decoded(path, keep_depth=True, **how)
  assert deep.dtype == np.uint16
  np.testing.assert_array_equal(
      deep, decoded(path, **how).astype(np.uint32) * 257)


@pytest.mark.parametrize('name', ['x.png', 'x.tif'])
@pytest.mark.parametrize('bits', [10, 12, 16])
def test_the_full_scale_of_deep_files_becomes_65535(tmp_path, name, bits):
  values = RAMP >> 12 - bits if bits < 12 else RAMP << bits - 12
  path = saved(tmp_path / name, values)
  want = np.rint(values / (2**bits - 1) * 65535)
  for how in ({'channels': 1}, {}):
    np.testing.assert_array_equal(
        decoded(path, bits, keep_depth=True, **how)[..., 0], want)
  with pytest.raises(image_files.Undeclared):
    decoded(path, keep_depth=True)
  assert (decoded(path, 8, keep_depth=True) == 65535).sum() > 3 * 40


@pytest.mark.parametrize('channels, kind', [(3, 2), (4, 6), (2, 4)])
def test_colours_of_sixteen_bits_keep_both_bytes(tmp_path, channels, kind):
  values = DEEP[:8, :8]
  if channels == 2:
    values = values[..., :1]
  stored = np.concatenate(
      [values, np.full((8, 8, int(channels % 2 == 0)), 65535, np.uint16)], -1)
  path = tmp_path / 'x.png'
  path.write_bytes(deep_png(stored, kind))
  found = decoded(path, 16, keep_depth=True)
  np.testing.assert_array_equal(found, np.broadcast_to(values, (8, 8, 3)))
  grey = decoded(path, 16, keep_depth=True, channels=1)[..., 0]
  want = values @ np.array([0.299, 0.587, 0.114]) if channels > 2 else (
      values[..., 0])
  np.testing.assert_allclose(grey, want, atol=2)


def test_sixteen_bits_in_print_colours_become_those_of_eight(tmp_path):
  values = RANDOM.randint(0, 256, (8, 8, 4)).astype(np.uint8)
  header = struct.pack('<2sHI', b'II', 42, 8)
  entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 4, 134), (259, 3, 1, 1),
             (262, 3, 1, 5), (273, 4, 1, 142), (277, 3, 1, 4), (278, 3, 1, 8),
             (279, 4, 1, 512)]
  content = header + struct.pack('<H', len(entries)) + b''.join(
      struct.pack('<HHII', *x) for x in entries) + bytes(4)
  content = content.ljust(134, b'\0') + struct.pack('<4H', 16, 16, 16, 16)
  path = tmp_path / 'x.tif'
  path.write_bytes(content + (values.astype('<u2') * 257).tobytes())
  Image.fromarray(values, 'CMYK').save(tmp_path / 'y.tif')
  found = decoded(path, 16, keep_depth=True)
  np.testing.assert_allclose(
      found / 257, decoded(tmp_path / 'y.tif').astype(float), atol=1)


@pytest.mark.parametrize('size', [5, 8, 30])
def test_resizing_keeps_sixteen_bits(tmp_path, size):
  path = tmp_path / 'x.png'
  path.write_bytes(deep_png(DEEP[:, :12], 2))
  cropped = decoded(path, 16, size=size, keep_depth=True)
  middle = reference(DEEP[:, :12].transpose(2, 0, 1), size)
  assert np.abs(cropped - middle.transpose(1, 2, 0)).max() < 0.51
  path.write_bytes(deep_png(DEEP, 2))
  padded = decoded(path, 16, size=size, keep_depth=True, fit='pad')
  height = round(12 * size / 20)
  top = (size - height) // 2
  whole = triangle(triangle(DEEP.transpose(2, 0, 1).astype(float), size)
                   .swapaxes(1, 2), height).transpose(2, 1, 0)
  assert np.abs(padded[top:top + height] - whole).max() < 0.51
  assert not padded[:top].any() and not padded[top + height:].any()
  square = DEEP[None, :, :12]
  np.testing.assert_allclose(
      pixel_arrays.resize(square, size),
      reference(square.transpose(0, 3, 1, 2), size).transpose(0, 2, 3, 1),
      atol=0.51)


def test_deep_images_are_cropped_as_others_are(tmp_path):
  path = saved(tmp_path / 'x.png', COLOURS)
  want = decoded(path).astype(float)
  path.write_bytes(deep_png(COLOURS * np.uint16(257), 2))
  found = decoded(path, 16, keep_depth=True) / 257
  assert np.abs(found - want).max() < 1.01  # Pillow rounds 8 bits twice


def test_a_folder_keeps_a_depth_for_each_client(tmp_path):
  """Decoded, from the cache, and row by row."""
  saved(tmp_path / 'a' / '0.png', RAMP)
  saved(tmp_path / 'a' / '1.png', RAMP // 4)
  saved(tmp_path / 'b' / '0.png', RAMP * 16)
  saved(tmp_path / 'b' / '1.png', COLOURS[:8, :8])
  for lazy in (True, False, False, True):
    images = np.asarray(sources.load(
        f'folder:{tmp_path}', image_size=8, channels=1, keep_depth=True,
        lazy=lazy).train_images)
    assert images.shape == (4, 8, 8, 1) and images.dtype == np.uint16
    np.testing.assert_array_equal(
        images[1, ..., 0], np.rint(RAMP // 4 / 4095 * 65535))
    np.testing.assert_array_equal(images[2, ..., 0], RAMP * 16)
  assert len(list(tmp_path.glob('.fedu_jax-*'))) == 1
  plain = sources.load(f'folder:{tmp_path}', image_size=8).train_images
  assert plain.shape == (4, 8, 8, 3) and plain.dtype == np.uint8


# --- arrays ------------------------------------------------------------------


@pytest.mark.parametrize('lazy', [False, True])
def test_arrays_of_sixteen_bits_are_asked_for(tmp_path, lazy):
  np.savez(tmp_path / 'a.npz', train_images=DEEP[None], test_images=DEEP[None])
  source = f'npz:{tmp_path}/a.npz'
  data = sources.load(source, keep_depth=True, lazy=lazy)
  np.testing.assert_array_equal(np.asarray(data.train_images), DEEP[None])
  grey = sources.load(source, keep_depth=True, lazy=lazy, channels=1,
                      image_size=6)
  want = reference(DEEP[None] @ np.array([0.299, 0.587, 0.114]), 6)
  for images in (grey.train_images, grey.test_images):
    assert images.shape == (1, 6, 6, 1) and images.dtype == np.uint16
    np.testing.assert_allclose(np.asarray(images)[..., 0], want, atol=3)
  with pytest.raises(BadInput, match='uint16: set --config.data.keep_depth'):
    sources.load(source, lazy=lazy)


def test_all_sources_have_the_channels_and_the_depth_that_are_asked_for():
  plain = sources.load('digits', max_examples=9)
  found = sources.load('digits', max_examples=9, channels=1, keep_depth=True)
  for ours, theirs in ((found.train_images, plain.train_images),
                       (found.test_images, plain.test_images)):
    assert ours.dtype == np.uint16 and ours.shape[1:] == (8, 8, 1)
    np.testing.assert_array_equal(ours // 257, theirs[..., :1])


def test_luma_of_arrays_is_pillows():
  np.testing.assert_array_equal(
      pixel_arrays.with_channels(COLOURS, 1)[..., 0],
      np.asarray(Image.fromarray(COLOURS).convert('L')))
  white = np.full((1, 1, 3), 65535, np.uint16)
  assert pixel_arrays.with_channels(white, 1).item() == 65535
