"""Colours as a viewer shows them: over white, and by the file's profile."""

import numpy as np
from PIL import Image, ImageCms
import pytest

from fedu_jax.data import image_files
from fedu_jax.data import reading_report
from fedu_jax.data import sources

GREEN, GREY = (0, 200, 0), (90, 90, 90)
STORED, SEEN = (image_files.How(8, colours=x) for x in image_files.COLOURS)


def saved(path, image, **more):
  image.save(path, **more)
  return path


def transparent(mode):
  """Makes an image: opaque green at left, transparent red at right."""
  rgba = np.zeros((8, 8, 4), np.uint8)
  rgba[:, :4] = *GREEN, 255
  rgba[:, 4:] = 255, 0, 0, 0
  image = Image.fromarray(rgba)
  return image if mode == 'RGBA' else image.convert(mode)


def pixels(path, how):
  return image_files.decode(path, how).pixels


@pytest.mark.parametrize('kind, mode', [
    ('png', 'RGBA'), ('webp', 'RGBA'), ('tif', 'RGBA'), ('ico', 'RGBA'),
    ('tga', 'RGBA'), ('gif', 'RGBA'), ('png', 'LA')])
def test_what_lies_under_transparent_pixels_is_not_seen(tmp_path, kind, mode):
  more = {'lossless': True} if kind == 'webp' else {}
  if kind == 'ico':
    more = {'sizes': [(8, 8)]}
  path = saved(tmp_path / f'x.{kind}', transparent(mode), **more)
  found = image_files.decode(path, SEEN)
  assert (found.pixels[:, 4:] == 255).all() and not found.unseen
  as_stored = image_files.decode(path, STORED)
  np.testing.assert_array_equal(found.pixels[:, :4], as_stored.pixels[:, :4])
  assert not (as_stored.pixels[:, 4:] == 255).all() and as_stored.unseen


def test_half_transparent_pixels_are_half_white(tmp_path):
  image = Image.new('RGBA', (8, 8), (*GREEN, 128))
  got = pixels(saved(tmp_path / 'x.png', image), SEEN)
  np.testing.assert_allclose(got[0, 0], [127, 227, 127], atol=1)


def test_one_colour_of_a_palette_or_a_file_is_transparent(tmp_path):
  """PNG's tRNS chunk for a palette, for grey and for colours."""
  palette = Image.new('P', (8, 8), 1)
  palette.putpalette([0, 0, 0, *GREEN])
  palette.paste(0, (4, 0, 8, 8))
  colour = Image.new('RGB', (8, 8), GREEN)
  colour.paste((0, 0, 0), (4, 0, 8, 8))
  for i, (image, key) in enumerate([
      (palette, 0), (colour.convert('L'), 0), (colour, (0, 0, 0))]):
    path = saved(tmp_path / f'{i}.png', image, transparency=key)
    assert (pixels(path, SEEN)[:, 4:] == 255).all()
    assert not pixels(path, STORED)[:, 4:].any()


def test_opaque_images_are_what_they_were(tmp_path):
  """All modes, an alpha of 255, and sRGB keep their bits."""
  noise = np.random.RandomState(0).randint(0, 256, (8, 8, 3)).astype(np.uint8)
  image = Image.fromarray(noise)
  usual = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  for i, path in enumerate([
      *(saved(tmp_path / f'{mode}.png', image.convert(mode))
        for mode in ('RGB', 'RGBA', 'L', 'LA', 'P', '1')),
      saved(tmp_path / 'usual.png', image, icc_profile=usual),
      saved(tmp_path / 'broken.png', image, icc_profile=b'no profile'),
      saved(tmp_path / 'cmyk.tif', image.convert('CMYK')),
      saved(tmp_path / 'deep.png', Image.fromarray(
          noise[..., 0].astype(np.uint16) << 8))]):
    a, b = (image_files.decode(path, how, 16) for how in (STORED, SEEN))
    np.testing.assert_array_equal(a.pixels, b.pixels)
    assert not a.unseen and not b.unseen, path
    assert i or (a.pixels == noise).all()


def swapped():
  """Makes a profile that swaps red and blue."""
  content = bytearray(ImageCms.ImageCmsProfile(
      ImageCms.createProfile('sRGB')).tobytes())
  table = {bytes(content[i:i + 4]): i for i in range(
      132, 132 + 12 * int.from_bytes(content[128:132]), 12)}
  red, blue = table[b'rXYZ'] + 4, table[b'bXYZ'] + 4
  content[red:red + 8], content[blue:blue + 8] = (
      content[blue:blue + 8], content[red:red + 8])
  name = content.find('sRGB'.encode('utf-16-be'))
  content[name:name + 8] = 'swap'.encode('utf-16-be')
  return bytes(content)


@pytest.mark.parametrize('kind', ['png', 'jpg', 'tif', 'webp'])
def test_a_profile_says_which_colours_they_are(tmp_path, kind):
  image = Image.new('RGB', (8, 8), (200, 90, 30))
  more = {'lossless': True} if kind == 'webp' else (
      {'quality': 100, 'subsampling': 0} if kind == 'jpg' else {})
  path = saved(tmp_path / f'x.{kind}', image, icc_profile=swapped(), **more)
  np.testing.assert_allclose(pixels(path, STORED)[0, 0], (200, 90, 30), atol=3)
  np.testing.assert_allclose(pixels(path, SEEN)[0, 0], (30, 90, 200), atol=3)
  assert image_files.decode(path, STORED).unseen


def test_a_profile_of_another_space_is_ignored(tmp_path):
  """Some programs leave a profile of colours on a grey image."""
  image = Image.new('L', (8, 8), 90)
  path = saved(tmp_path / 'x.png', image, icc_profile=swapped())
  assert (pixels(path, SEEN) == GREY).all()


def test_a_folder_says_how_many_are_not_as_seen(tmp_path):
  for client in 'ab':
    (tmp_path / client).mkdir()
    saved(tmp_path / client / '0.png', transparent('RGBA'))
    saved(tmp_path / client / '1.png', Image.new('RGB', (8, 8), GREEN))

  def load(**more):
    return sources.load(f'folder:{tmp_path}', image_size=8, **more)
  for _ in range(2):  # decoded, and from the cache
    data = load()
    assert 'of 2 images with transparent pixels' in ''.join(
        reading_report.lines(data.files))
    assert data.files.summary()['colours_as_stored'] == 2
    seen = load(colours='seen')
    assert 'transparent' not in ''.join(reading_report.lines(seen.files))
    assert (seen.train_images[0, :, 4:] == 255).all()
    assert not (data.train_images[0, :, 4:] == 255).all()
