"""Damaged data to attack with: files by name, and their right treatment."""

import functools
import io
import os
import pathlib
import pickle
import random
import struct
import tarfile
from typing import Any
import zipfile
import zlib

import numpy as np
from PIL import Image, ImageCms

from tests.faults import attack

PIXELS = np.random.RandomState(0).randint(
    0, 256, (40, 30, 3)).astype(np.uint8)
READ, SKIPPED, REFUSED = 'read', 'skipped', 'refused'


def encoded(kind: str, image: Image.Image | None = None, **more) -> bytes:
  buffer = io.BytesIO()
  (image or Image.fromarray(PIXELS)).save(buffer, kind, **more)
  return buffer.getvalue()


def _bomb(side: int) -> bytes:
  """A PNG of a few kilobytes that declares this size."""
  png = encoded('PNG')
  header = b'IHDR' + struct.pack('>II', side, side) + png[24:29]
  return png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]


def judged(done: attack.Done, words: str) -> str:
  """Returns what is wrong with how a source was read, or refused."""
  if words == READ:
    return '' if (done.returncode, done.stderr) == (0, '') else (
        f'{done.returncode} {done.stderr[-400:]}')
  wrong = attack.refusal(done)
  return wrong or ('' if words in done.stderr else
                   f'{words!r} is not in {done.stderr[:300]}')


def wide() -> Image.Image:
  """An image with a profile of its own, which is not sRGB."""
  image = Image.fromarray(PIXELS)
  image.info['icc_profile'] = ImageCms.ImageCmsProfile(
      ImageCms.createProfile('LAB')).tobytes()
  return image


def deep_colours() -> bytes:
  """A PNG of 16 bits a colour, of which 12 are used."""
  rows = (PIXELS.astype('>u2') * 16).reshape(len(PIXELS), -1)
  data = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))

  def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack(
        '>I', zlib.crc32(name + content))
  height, width = PIXELS.shape[:2]
  return b'\x89PNG\r\n\x1a\n' + chunk(
      b'IHDR', struct.pack('>IIBBBBB', width, height, 16, 2, 0, 0, 0)) + chunk(
          b'IDAT', data) + chunk(b'IEND', b'')


@functools.cache
def files() -> dict[str, tuple[bytes, str]]:
  """Files by name: their bytes, and their right treatment."""
  image = Image.fromarray(PIXELS)
  png, jpeg, gif = (encoded(x) for x in ('PNG', 'JPEG', 'GIF'))
  deep = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(40, 30)
  frames = [Image.fromarray(np.full((9, 9, 3), x, np.uint8)) for x in (9, 99)]
  late = Image.Exif()
  late[0x0112] = 6
  read = {
      'plain.png': png, 'plain.jpg': jpeg, 'plain.gif': gif,
      'plain.bmp': encoded('BMP'), 'plain.webp': encoded('WEBP'),
      'plain.tif': encoded('TIFF'), 'plain.ppm': encoded('PPM'),
      'plain.jp2': encoded('JPEG2000'), 'plain.tga': encoded('TGA'),
      'grey.png': encoded('PNG', image.convert('L')),
      'grey.jpg': encoded('JPEG', image.convert('L')),
      'bits.png': encoded('PNG', image.convert('1')),
      'palette.png': encoded('PNG', image.convert('P'), transparency=b'\1\2'),
      'alpha.png': encoded('PNG', image.convert('RGBA')),
      'grey_alpha.png': encoded('PNG', image.convert('LA')),
      'cmyk.jpg': encoded('JPEG', image.convert('CMYK')),
      'cmyk.tif': encoded('TIFF', image.convert('CMYK')),
      'lab.tif': encoded('TIFF', image.convert('LAB')),
      'deep.png': encoded('PNG', Image.fromarray(deep)),
      'deep_colours.png': deep_colours(), 'wide.png': encoded(
          'PNG', wide(), icc_profile=wide().info['icc_profile']),
      'wide.jpg': encoded('JPEG', icc_profile=b'no profile' * 9),
      'deep.tif': encoded('TIFF', Image.fromarray(deep)),
      'animated.gif': encoded('GIF', frames[0], save_all=True,
                               append_images=frames[1:]),
      'animated.png': encoded('PNG', frames[0], save_all=True,
                               append_images=frames[1:]),
      'animated.webp': encoded('WEBP', frames[0], save_all=True,
                                append_images=frames[1:]),
      'turned.jpg': encoded('JPEG', exif=late),
      'bad_exif.jpg': encoded('JPEG', exif=b'Exif\0\0MM\0*\xff\xff\xff\xff'),
      'one_pixel.png': encoded('PNG', Image.new('RGB', (1, 1))),
      'a_line.png': encoded('PNG', Image.new('RGB', (5000, 1))),
      'jpeg_inside.png': jpeg, 'PNG_INSIDE.GIF': png, 'upper.PNG': png,
      # Of which Pillow would only warn.
      'large.png': encoded('PNG', Image.new('1', (12_000, 9_000)))}
  skipped = {
      'nothing.png': b'', 'text.png': b'hello', 'zeros.jpg': bytes(5000),
      'html.jpg': b'<!DOCTYPE html><html><body>404</body></html>',
      'half.png': png[:len(png) // 2], 'half.jpg': jpeg[:len(jpeg) // 2],
      'head.gif': gif[:20], 'head.png': png[:8], 'magic.jpg': b'\xff\xd8\xff',
      'zip.png': npz(a=np.zeros(3)), 'pickle.png': pickle.dumps([1, 2]),
      'script.png': b'#!/bin/sh\nexit 1\n',
      'bomb.png': _bomb(50_000), 'too_large.png': _bomb(2**31 - 1),
      # Pillow would start Ghostscript for it.
      'program.eps': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
                     b'%%EndComments\nshowpage\n',
      'float.tif': encoded('TIFF', Image.fromarray(
          np.ones((5, 5), np.float32))),
      'int32.tif': encoded('TIFF', Image.fromarray(
          np.full((5, 5), 2**30, np.int32))),
      # Of which Pillow would write a line of its own.
      'samples.tif': _replaced(
          encoded('TIFF'), struct.pack('<HHII', 277, 3, 1, 3),
          struct.pack('<HHII', 277, 3, 1, 36355)),
      'crc.png': png[:200] + bytes([png[200] ^ 255]) + png[201:]}
  return {name: (content, verdict) for several, verdict in (
      (read, READ), (skipped, SKIPPED)) for name, content in several.items()}


def _replaced(data: bytes, old: bytes, new: bytes) -> bytes:
  assert data.count(old) == 1
  return data.replace(old, new)


def npz(*compressed: bool, **arrays: Any) -> bytes:
  buffer = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
  return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, array)
  return buffer.getvalue()


class Payload:
  """A pickle that harms a process that loads it."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def npzs() -> dict[str, tuple[bytes, str]]:
  """Npz files by name: their bytes, and words of the refusal, or 'read'."""
  images, labels = np.zeros((12, 4, 4, 3), np.uint8), np.arange(12) % 3
  both = dict(train_images=images, train_labels=labels)
  x = dict(train_images=images)
  whole = npz(**both)

  def headed(shape, dtype="'|u1'", data=b'\0' * 64):
    """An npz with a wrong header."""
    buffer = io.BytesIO()
    header = (f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}"
              ).encode().ljust(117) + b'\n'
    with zipfile.ZipFile(buffer, 'w') as archive:
      archive.writestr('train_images.npy', b'\x93NUMPY\1\0' + len(
          header).to_bytes(2, 'little') + header + data)
    return buffer.getvalue()
  zipped = io.BytesIO()
  with zipfile.ZipFile(zipped, 'w') as archive:
    archive.writestr('train_images', b'no array')
    archive.writestr('train_images.npy', b'no array')
  return {
      'whole': (whole, READ), 'compressed': (npz(True, **both), READ),
      'class_missing': (npz(**x, train_labels=labels * 2), READ),
      'one_class': (npz(**x, train_labels=labels * 0), READ),
      'big_endian': (npz(**x, train_labels=labels.astype('>i4')), READ),
      'without_labels': (npz(**x), READ),
      'labels_alone': (npz(train_labels=labels), 'no train_images'),
      'nothing': (npz(), ''), 'empty': (b'', ''), 'text': (b'hello', ''),
      'zeros': (bytes(1000), ''), 'no_array': (zipped.getvalue(), ''),
      'npy': (_npy(images), ''), 'pickle': (pickle.dumps(both), ''),
      'negative': (npz(**x, train_labels=labels - 1), 'go from -1 to 1'),
      'huge_label': (npz(**x, train_labels=labels + 10**9), 'below 100,000'),
      'beyond_int64': (npz(**x, train_labels=labels.astype(
          np.uint64) + np.uint64(2**63 + 7)), 'below 100,000'),
      'one_hot': (npz(**x, train_labels=np.eye(12, dtype=int)), '12 integers'),
      'float_labels': (npz(**x, train_labels=labels * 1.), '12 integers'),
      'text_labels': (npz(**x, train_labels=labels.astype(str)), '12 integ'),
      'flags': (npz(**x, train_labels=labels > 1), '12 integers'),
      'few_labels': (npz(**x, train_labels=labels[:5]), '12 integers'),
      'owners': (npz(**both, owners=labels), READ),
      'owners_column': (npz(**x, owners=labels.astype('>u2')[:, None]), READ),
      'named': (npz(**x, owners=labels, owner_names=['a\n', '\x1b[31m', 'c']),
                READ),
      'float_owners': (npz(**x, owners=labels * 1.), '12 integers'),
      'negative_owner': (npz(**x, owners=labels - 1), 'go from -1 to 1'),
      'huge_owner': (npz(**x, owners=labels + 10**9), 'below 1,000,000'),
      'owner_beyond_int64': (npz(**x, owners=labels.astype(
          np.uint64) + np.uint64(2**63 + 7)), 'below 1,000,000'),
      'owner_gap': (npz(**x, owners=labels * 2), 'owner 1 has no'),
      'few_owners': (npz(**x, owners=labels[:5]), '12 integers'),
      'few_names': (npz(**x, owners=labels, owner_names=['a', 'b']), '3 texts'),
      'byte_names': (npz(**x, owners=labels, owner_names=[b'a', b'b', b'c']),
                     '3 texts'),
      'number_names': (npz(**x, owners=labels, owner_names=[1, 2, 3]),
                       '3 texts'),
      'object_names': (npz(**x, owners=labels, owner_names=np.array(
          ['a', 'b', None], object)), 'plain'),
      'names_alone': (npz(**x, owner_names=['a']), '0 texts'),
      'scalar_label': (npz(**x, train_labels=3), '12 integers'),
      'no_label': (npz(**x, train_labels=labels[:0]), '12 integers'),
      'nan': (npz(train_images=images * np.nan), 'must be uint8'),
      'floats': (npz(train_images=images / 255), 'must be uint8'),
      'int64': (npz(train_images=images.astype(int)), 'must be uint8'),
      'flat': (npz(train_images=images.reshape(12, -1)), 'must be uint8'),
      'scalar': (npz(train_images=np.uint8(3)), ''),
      'five_axes': (npz(train_images=images[None]), 'must be uint8'),
      'channels_first': (npz(train_images=images.transpose(0, 3, 1, 2)),
                         'must be uint8'),
      'no_rows': (npz(train_images=images[:0]), 'must be uint8'),
      'no_pixels': (npz(train_images=images[:, :0]), 'must be uint8'),
      'records': (npz(train_images=np.zeros(12, 'u1,u1')), 'must be uint8'),
      'sizes_differ': (npz(**both, test_images=images[:, :2],
                            test_labels=labels), 'differ in size'),
      'bad_test_label': (npz(**both, test_images=images, test_labels=labels
                              - 5), 'test labels go from -5'),
      'absurd': (headed((2**40, 32, 32, 3)), ''),
      'overflowing': (headed((2**40, 2**40, 2**40, 3)), ''),
      'negative_shape': (headed((-1, 4, 4, 3)), ''),
      'longer_than_it_is': (headed((12, 4, 4, 3)), ''),
      'shape_of_code': (headed('__import__("os").abort()'), ''),
      'nested': (headed('(' * 3000), ''),
      'cut': (whole[:-40], ''), 'half': (whole[:len(whole) // 2], '')}


def _npy(array: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, array)
  return buffer.getvalue()


def mutated(content: bytes, draw: random.Random) -> bytes:
  """Changes, cuts, doubles or moves some of the bytes."""
  found = bytearray(content)
  for _ in range(draw.choice((1, 1, 3, 20))):
    at = draw.randrange(len(found)) if len(found) > 1 else 0
    size = draw.choice((1, 2, 4, 30, len(found) // 3))
    what = draw.randrange(6)
    if what < 3:  # most often few bytes, and early: headers
      at = min(at, draw.randrange(400))
      found[at:at + 1] = bytes([draw.randrange(256)])
    elif what == 3:
      found[at:at + size] = draw.choice((b'\0', b'\xff')) * size
    elif what == 4:
      del found[at:at + size]
    else:
      found[at:at] = found[:size]
  return bytes(found)


def cifar10(root: pathlib.Path) -> None:
  """An archive with the layout of CIFAR-10's official one, of random pixels."""
  manual = root / 'downloads' / 'manual'
  manual.mkdir(parents=True)
  draw = np.random.RandomState(0)
  with tarfile.open(manual / 'cifar-10-binary.tar.gz', 'w:gz') as tar:
    def add(file, content):
      info = tarfile.TarInfo(f'cifar-10-batches-bin/{file}')
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
    add('batches.meta.txt', ''.join(f'name{i}\n' for i in range(10)).encode())
    for file in [f'data_batch_{i}.bin' for i in range(1, 6)] + [
        'test_batch.bin']:
      rows = draw.randint(0, 256, (5, 1 + 3072))
      rows[:, 0] %= 10  # the label
      add(file, rows.astype(np.uint8).tobytes())
