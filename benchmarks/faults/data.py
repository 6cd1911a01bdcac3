"""Attacks by poor data: image files, npz files, TFDS's, and our own caches."""

from collections.abc import Callable, Iterator
import functools
import io
import itertools
import os
import pathlib
import pickle
import random
import shutil
import struct
import subprocess
import tarfile
from typing import Any
import zipfile
import zlib

import numpy as np
from PIL import Image

from benchmarks.faults import attack
from benchmarks.faults import forks

BROKEN = {
    'image files of every kind': attack.Break(
        'fedu_jax/folders.py', "warnings.simplefilter('ignore')",
        "warnings.simplefilter('always')"),
    'images with bytes changed': attack.Break(
        'fedu_jax/folders.py', 'except Exception as error:  # damage',
        'except SyntaxError as error:  # damage'),
    'folders that cannot be read': attack.Break(
        'fedu_jax/folders.py', 'if not path.is_file() and path.exists():',
        'if not path.name:'),
    'npz files that are wrong': attack.Break(
        'fedu_jax/sources.py',
        'if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:',
        'if not 0 <= labels.min():'),
    'npz files with bytes changed': attack.Break(
        'fedu_jax/sources.py',
        'except Exception as error:  # a damaged file leads NumPy and zip',
        'except OSError as error:  # a damaged file leads NumPy and zip'),
    'pickles in npz files': attack.Break(
        'fedu_jax/sources.py', 'allow_pickle=False', 'allow_pickle=True'),
    'caches damaged or swapped': attack.Break(
        'fedu_jax/cache.py', 'found = kind(**file)\n      if fits(found):',
        'found = kind(**file)\n      if True:'),
    'TFDS files damaged': attack.Break(
        'fedu_jax/tfds_reader.py', 'except Exception as error:\n    raise '
        "BadInput(\n        f'data.source tfds: {builder.name} in",
        'except KeyError as error:\n    raise '
        "BadInput(\n        f'data.source tfds: {builder.name} in")}

_PIXELS = np.random.RandomState(0).randint(0, 256, (40, 30, 3), np.uint8)
READ, SKIPPED, REFUSED = 'read', 'skipped', 'refused'


def _encoded(kind: str, image: Image.Image | None = None, **more) -> bytes:
  buffer = io.BytesIO()
  (image or Image.fromarray(_PIXELS)).save(buffer, kind, **more)
  return buffer.getvalue()


def _bomb(side: int) -> bytes:
  """A PNG of a few kilobytes that says it is as large as this."""
  png = _encoded('PNG')
  header = b'IHDR' + struct.pack('>II', side, side) + png[24:29]
  return png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]


@functools.cache
def files() -> dict[str, tuple[bytes, str]]:
  """Files by name: their bytes, and what shall become of them."""
  image = Image.fromarray(_PIXELS)
  png, jpeg, gif = (_encoded(x) for x in ('PNG', 'JPEG', 'GIF'))
  deep = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(40, 30)
  frames = [Image.fromarray(np.full((9, 9, 3), x, np.uint8)) for x in (9, 99)]
  late = Image.Exif()
  late[0x0112] = 6
  read = {
      'plain.png': png, 'plain.jpg': jpeg, 'plain.gif': gif,
      'plain.bmp': _encoded('BMP'), 'plain.webp': _encoded('WEBP'),
      'plain.tif': _encoded('TIFF'), 'plain.ppm': _encoded('PPM'),
      'plain.jp2': _encoded('JPEG2000'), 'plain.tga': _encoded('TGA'),
      'grey.png': _encoded('PNG', image.convert('L')),
      'grey.jpg': _encoded('JPEG', image.convert('L')),
      'bits.png': _encoded('PNG', image.convert('1')),
      'palette.png': _encoded('PNG', image.convert('P'), transparency=b'\1\2'),
      'alpha.png': _encoded('PNG', image.convert('RGBA')),
      'grey_alpha.png': _encoded('PNG', image.convert('LA')),
      'cmyk.jpg': _encoded('JPEG', image.convert('CMYK')),
      'cmyk.tif': _encoded('TIFF', image.convert('CMYK')),
      'lab.tif': _encoded('TIFF', image.convert('LAB')),
      'deep.png': _encoded('PNG', Image.fromarray(deep)),
      'deep.tif': _encoded('TIFF', Image.fromarray(deep)),
      'animated.gif': _encoded('GIF', frames[0], save_all=True,
                               append_images=frames[1:]),
      'animated.png': _encoded('PNG', frames[0], save_all=True,
                               append_images=frames[1:]),
      'animated.webp': _encoded('WEBP', frames[0], save_all=True,
                                append_images=frames[1:]),
      'turned.jpg': _encoded('JPEG', exif=late),
      'bad_exif.jpg': _encoded('JPEG', exif=b'Exif\0\0MM\0*\xff\xff\xff\xff'),
      'one_pixel.png': _encoded('PNG', Image.new('RGB', (1, 1))),
      'a_line.png': _encoded('PNG', Image.new('RGB', (5000, 1))),
      'jpeg_inside.png': jpeg, 'PNG_INSIDE.GIF': png, 'upper.PNG': png,
      # Of which Pillow would only warn.
      'large.png': _encoded('PNG', Image.new('1', (12_000, 9_000)))}
  skipped = {
      'nothing.png': b'', 'text.png': b'hello', 'zeros.jpg': bytes(5000),
      'html.jpg': b'<!DOCTYPE html><html><body>404</body></html>',
      'half.png': png[:len(png) // 2], 'half.jpg': jpeg[:len(jpeg) // 2],
      'head.gif': gif[:20], 'head.png': png[:8], 'magic.jpg': b'\xff\xd8\xff',
      'zip.png': _npz(a=np.zeros(3)), 'pickle.png': pickle.dumps([1, 2]),
      'script.png': b'#!/bin/sh\nexit 1\n',
      'bomb.png': _bomb(50_000), 'too_large.png': _bomb(2**31 - 1),
      # Pillow would start Ghostscript for it.
      'program.eps': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
                     b'%%EndComments\nshowpage\n',
      'float.tif': _encoded('TIFF', Image.fromarray(
          np.ones((5, 5), np.float32))),
      'int32.tif': _encoded('TIFF', Image.fromarray(
          np.full((5, 5), 2**30, np.int32))),
      'crc.png': png[:200] + bytes([png[200] ^ 255]) + png[201:]}
  return {name: (content, verdict) for several, verdict in (
      (read, READ), (skipped, SKIPPED)) for name, content in several.items()}


def _npz(*compressed: bool, **arrays: Any) -> bytes:
  buffer = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
  return buffer.getvalue()


class _Payload:
  """What a pickle can do to who loads it."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def npzs() -> dict[str, tuple[bytes, str]]:
  """Npz files by name: their bytes, and words of the refusal, or 'read'."""
  images, labels = np.zeros((12, 4, 4, 3), np.uint8), np.arange(12) % 3
  both = dict(train_images=images, train_labels=labels)
  x = dict(train_images=images)
  whole = _npz(**both)

  def headed(shape, dtype="'|u1'", data=b'\0' * 64):
    """An npz whose array says of itself what is not so."""
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
      'whole': (whole, READ), 'compressed': (_npz(True, **both), READ),
      'class_missing': (_npz(**x, train_labels=labels * 2), READ),
      'one_class': (_npz(**x, train_labels=labels * 0), READ),
      'big_endian': (_npz(**x, train_labels=labels.astype('>i4')), READ),
      'without_labels': (_npz(**x), READ),
      'labels_alone': (_npz(train_labels=labels), 'no train_images'),
      'nothing': (_npz(), ''), 'empty': (b'', ''), 'text': (b'hello', ''),
      'zeros': (bytes(1000), ''), 'no_array': (zipped.getvalue(), ''),
      'npy': (_npy(images), ''), 'pickle': (pickle.dumps(both), ''),
      'negative': (_npz(**x, train_labels=labels - 1), 'go from -1 to 1'),
      'huge_label': (_npz(**x, train_labels=labels + 10**9), 'below 100,000'),
      'beyond_int64': (_npz(**x, train_labels=labels.astype(
          np.uint64) + np.uint64(2**63 + 7)), 'below 100,000'),
      'one_hot': (_npz(**x, train_labels=np.eye(12, dtype=int)), '12 integers'),
      'float_labels': (_npz(**x, train_labels=labels * 1.), '12 integers'),
      'text_labels': (_npz(**x, train_labels=labels.astype(str)), '12 integ'),
      'flags': (_npz(**x, train_labels=labels > 1), '12 integers'),
      'few_labels': (_npz(**x, train_labels=labels[:5]), '12 integers'),
      'scalar_label': (_npz(**x, train_labels=3), '12 integers'),
      'no_label': (_npz(**x, train_labels=labels[:0]), '12 integers'),
      'nan': (_npz(train_images=images * np.nan), 'must be uint8'),
      'floats': (_npz(train_images=images / 255), 'must be uint8'),
      'int64': (_npz(train_images=images.astype(int)), 'must be uint8'),
      'flat': (_npz(train_images=images.reshape(12, -1)), 'must be uint8'),
      'scalar': (_npz(train_images=np.uint8(3)), ''),
      'five_axes': (_npz(train_images=images[None]), 'must be uint8'),
      'channels_first': (_npz(train_images=images.transpose(0, 3, 1, 2)),
                         'must be uint8'),
      'no_rows': (_npz(train_images=images[:0]), 'must be uint8'),
      'no_pixels': (_npz(train_images=images[:, :0]), 'must be uint8'),
      'records': (_npz(train_images=np.zeros(12, 'u1,u1')), 'must be uint8'),
      'sizes_differ': (_npz(**both, test_images=images[:, :2],
                            test_labels=labels), 'differ in size'),
      'bad_test_label': (_npz(**both, test_images=images, test_labels=labels
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


class _Attempts:
  """Counts what was tried and lost."""

  def __init__(self, row: str, say: Callable[[str], None]):
    self.row, self.say, self.tried = row, say, 0
    self.lost: list[str] = []

  def add(self, what: str, wrong: str) -> None:
    self.tried += 1
    if wrong:
      self.lost.append(f'{what}: {wrong}')
      self.say(f'{self.row}: {self.lost[-1][:600]}')

  def outcome(self) -> attack.Outcome:
    return attack.Outcome(self.tried, len(self.lost),
                          (self.lost + [''])[0][:150])


def _folder(root: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
  """A client with these files and a sound one, and a client with two."""
  for name, content in {'a/0.png': _encoded('PNG'), 'b/0.png': _encoded('PNG'),
                        'b/1.png': _encoded('PNG'), **{
                            f'a/{k}': v for k, v in contents.items()}}.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
  return root


def _judged(done: subprocess.CompletedProcess, words: str) -> str:
  """What is wrong with how a source was read, if 'read', or refused."""
  if words == READ:
    return '' if (done.returncode, done.stderr) == (0, '') else (
        f'{done.returncode} {done.stderr[-400:]}')
  wrong = attack.refusal(done)
  return wrong or ('' if words in done.stderr else
                   f'{words!r} is not in {done.stderr[:300]}')


def _images(order, load) -> Iterator[tuple[str, str]]:
  """Each kind of file by itself, read at once and row by row."""
  chosen = files()
  if order.short:  # all that are skipped, and some that are read
    chosen = {name: x for i, (name, x) in enumerate(chosen.items())
              if x[1] == SKIPPED or i % 3 == 0}
  for number, (name, (content, verdict)) in enumerate(chosen.items()):
    root = _folder(order.folder / f'kind{number}', {name: content})
    for lazy in (('eager', 'lazy') if not order.short else ('eager',)):
      done = load(f'folder:{root}', lazy)
      if lazy == 'lazy':
        yield f'{name}, lazy', _judged(
            done, READ if verdict == READ else 'several hosts skip none')
        continue
      want = '4 0 ' if verdict == READ else '3 1 '
      yield name, _judged(done, READ) or (
          '' if done.stdout.startswith(want)
          else f'{done.stdout!r} where {want!r} was due')
    shutil.rmtree(root)


def _fuzzed_images(order, load) -> Iterator[tuple[str, str]]:
  """Folders of twenty damaged files each: all are read or skipped."""
  draw = random.Random(order.seed)
  whole = [_encoded(x) for x in ('PNG', 'JPEG', 'GIF', 'WEBP', 'TIFF', 'BMP',
                                 'JPEG2000', 'ICO')]
  whole += [content for content, verdict in files().values()
            if verdict == READ and len(content) < 10_000]
  for number in range(3 if order.short else 50):
    contents = {f'{i}.png': mutated(draw.choice(whole), draw)
                for i in range(1, 21)}
    root = _folder(order.folder / f'fuzz{number}', contents)
    done = load(f'folder:{root}', 'eager')
    wrong = _judged(done, READ)
    if not wrong and sum(map(int, done.stdout.split()[:2])) != 23:
      wrong = f'{done.stdout!r} of 23'
    yield f'folder {number} of seed {order.seed}', wrong
    shutil.rmtree(root)


def _folders(order, load) -> Iterator[tuple[str, str]]:
  """Names, links, pipes and emptiness."""
  def names(root):
    for name in ('[b]a', '[x', '\x1b[31mred', 'new\nline', 'ünï', 'a b',
                 os.fsdecode(b'\xff\xfe')):
      (root / 'a' / f'{name}.png').write_bytes(b'no image')
      (root / name).mkdir()
      (root / name / '0.png').write_bytes(_encoded('PNG'))

  def none_readable(root):
    (root / 'c').mkdir()
    (root / 'c' / '0.png').write_bytes(b'')
  odd: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
      'pipe': (lambda root: os.mkfifo(root / 'a' / '1.png'), READ),
      'folder_named_png': (lambda root: (root / 'a' / '1.png').mkdir(), READ),
      'link_to_nowhere': (lambda root: (root / 'a' / '1.png').symlink_to(
          '/nowhere'), 'cannot be read'),
      'link_to_itself': (lambda root: (root / 'a' / '1.png').symlink_to(
          root / 'a' / '1.png'), 'cannot be read'),
      'link_to_above': (lambda root: (root / 'a' / 'up').symlink_to(root),
                        READ),
      'odd_names': (names, READ),
      'no_images': (lambda root: (root / 'c').mkdir(), 'c has no images'),
      'none_readable': (none_readable, 'none of the 1 images')}
  for name, (make, words) in odd.items():
    root = _folder(order.folder / name, {})
    make(root)
    yield name, _judged(load(f'folder:{root}', 'eager'), words)
  for what, words in (('nowhere', 'no folder'), ('kind', 'no folders')):
    (order.folder / 'kind').mkdir(exist_ok=True)
    yield what, _judged(load(f'folder:{order.folder / what}', 'eager'), words)


def _wrong_npz(order, load) -> Iterator[tuple[str, str]]:
  path = order.folder / 'x.npz'
  for name, (content, words) in npzs().items():
    path.write_bytes(content)
    for lazy in ('eager',) if order.short else ('eager', 'lazy'):
      yield f'{name}, {lazy}', _judged(load(f'npz:{path}', lazy), words)
  path.unlink()
  os.mkfifo(path)
  for what in (path, order.folder, order.folder / 'none.npz', '/dev/zero'):
    yield str(what), _judged(load(f'npz:{what}', 'eager'), 'there is no file')
  path.unlink()


def _fuzzed_npz(order, load) -> Iterator[tuple[str, str]]:
  draw = random.Random(order.seed)
  arrays = dict(train_images=np.zeros((12, 4, 4, 3), np.uint8),
                train_labels=np.arange(12) % 3)
  whole = [_npz(**arrays), _npz(True, **arrays)]
  path = order.folder / 'fuzzed.npz'
  for number in range(15 if order.short else 300):
    path.write_bytes(mutated(draw.choice(whole), draw))
    done = load(f'npz:{path}', draw.choice(('eager', 'lazy')))
    yield f'{number} of seed {order.seed}', _judged(
        done, '' if done.returncode else READ)


def _pickles(order, load) -> Iterator[tuple[str, str]]:
  """In the npz, and where our cache lies; the payload makes a folder."""
  made = order.folder / 'made by a pickle'
  payload = np.array([_Payload(made)], object)
  path = order.folder / 'pickled.npz'
  for name in ('train_images', 'train_labels'):
    path.write_bytes(_npz(**{
        'train_images': np.zeros((1, 4, 4, 3), np.uint8), name: payload}))
    for lazy in ('eager', 'lazy'):
      yield f'{name}, {lazy}', _judged(
          load(f'npz:{path}', lazy), 'plain') or (
              'it was run' if made.exists() else '')
      shutil.rmtree(made, ignore_errors=True)
  root = _folder(order.folder / 'pickled', {})
  load(f'folder:{root}', 'eager')
  cached, = root.glob('.fedu_jax-*')
  for content in (_npz(images=payload, owners=payload, skipped=payload),
                  pickle.dumps(_Payload(made))):
    cached.write_bytes(content)
    yield 'cache', _judged(load(f'folder:{root}', 'eager'), READ) or (
        'it was run' if made.exists() else '')


def _caches(order, load) -> Iterator[tuple[str, str]]:
  """Whatever stands in a cache's place: the data is as it was."""
  draw = random.Random(order.seed)
  root = _folder(order.folder / 'cached', {'1.png': b'no image'})
  want = load(f'folder:{root}', 'eager').stdout
  cached, = root.glob('.fedu_jax-*')
  whole = cached.read_bytes()
  with np.load(cached) as file:
    right = dict(file)
  swapped = [
      right | change for change in (
          {'images': right['images'][:, :4]}, {'images': right['images'][:2]},
          {'images': right['images'].astype(float)},
          {'images': right['images'][..., :1]},
          {'owners': right['owners'][:2]}, {'owners': right['owners'] + 7},
          {'owners': right['owners'].astype(float)},
          {'skipped': right['skipped'][:0]}, {'skipped': np.zeros(1)},
          {'more': right['images']})]
  swapped.append({'images': right['images']})
  contents = [_npz(**x) for x in swapped] + [b'', b'junk', whole[:100]] + [
      mutated(whole, draw) for _ in range(10 if order.short else 150)]
  for number, content in enumerate(contents):
    cached.write_bytes(content)
    done = load(f'folder:{root}', 'eager')
    yield f'{number} of seed {order.seed}', _judged(done, READ) or (
        '' if done.stdout == want else 'other images than before')


def _tfds(order, load) -> Iterator[tuple[str, str]]:
  """A CIFAR-10 of five images a file, prepared; then each file is damaged."""
  root = order.folder / 'tfds'
  _archive(root)
  draw = random.Random(order.seed)
  done = load('tfds:cifar10', 'eager', str(root))  # shows bars on stderr
  yield 'prepared', '' if not done.returncode else done.stderr[-400:]
  for cached in root.rglob('.fedu_jax-*'):
    cached.unlink()
  shutil.rmtree(root / 'downloads')
  paths = sorted(p for p in (root / 'cifar10').rglob('*') if p.is_file())
  damages: list[Callable[[bytes], bytes | None]] = [
      lambda x: b'', lambda x: x[:len(x) // 2], lambda x: None]
  if not order.short:
    damages += [lambda x: mutated(x, draw)] * 8
  for path, (number, damage) in itertools.product(paths, enumerate(damages)):
    if order.short and number != len(path.name) % 3:
      continue
    whole = path.read_bytes()
    content = damage(whole)
    path.unlink() if content is None else path.write_bytes(content)
    for lazy in ('eager', 'lazy'):
      done = load('tfds:cifar10', lazy, str(root))
      yield f'{path.name}, {number}, {lazy}', _judged(
          done, '' if done.returncode else READ)
    for cached in root.rglob('.fedu_jax-*'):
      cached.unlink()
    path.write_bytes(whole)


def _archive(root: pathlib.Path) -> None:
  """An archive as CIFAR-10's official one is laid out, of random pixels."""
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


ROWS = {
    'image files of every kind': _images,
    'images with bytes changed': _fuzzed_images,
    'folders that cannot be read': _folders,
    'npz files that are wrong': _wrong_npz,
    'npz files with bytes changed': _fuzzed_npz,
    'pickles in npz files': _pickles,
    'caches damaged or swapped': _caches,
    'TFDS files damaged': _tfds}


def run(order: attack.Order, rows: tuple[str, ...] = tuple(ROWS)
        ) -> dict[str, attack.Outcome]:
  """Reads what each row makes, each time in a process of its own."""
  found = {}
  with forks.Forks('fedu_jax.sources', 'fedu_jax.command',
                   'fedu_jax.tfds_reader', JAX_PLATFORMS='cpu') as server:
    def load(*argv: str) -> subprocess.CompletedProcess:
      return server.start('benchmarks.faults.load', *argv, timeout=60)
    for row in rows:
      attempts = _Attempts(row, order.say)
      for what, wrong in ROWS[row](order, load):
        attempts.add(what, wrong)
      found[row] = attempts.outcome()
  return found
