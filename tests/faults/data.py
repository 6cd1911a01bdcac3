"""Attacks by damaged data: images, npz files, TFDS sets, and our caches."""

from collections.abc import Callable, Iterator
import contextlib
import itertools
import os
import pathlib
import pickle
import random
import shutil
import subprocess

import numpy as np

from fedu_jax.data import row_file
from tests.faults import attack
from tests.faults import forks
from tests.faults import own_sources
from tests.faults import specimens
from tests.faults.specimens import encoded
from tests.faults.specimens import judged
from tests.faults.specimens import READ
from tests.faults.specimens import SKIPPED

BROKEN = {
    'image files of every kind': attack.Break(
        'fedu_jax/data/image_files.py', "warnings.simplefilter('ignore')",
        "warnings.simplefilter('always')"),
    'images with bytes changed': attack.Break(
        'fedu_jax/data/image_files.py',
        'except Exception as error:  # a damaged file can',
        'except SyntaxError as error:  # a damaged file can'),
    'folders that cannot be read': attack.Break(
        'fedu_jax/data/image_files.py', 'if not stat.S_ISREG(found.st_mode):',
        'if not path.name:'),
    'npz files that are wrong': attack.Break(
        'fedu_jax/data/dataset.py',
        'if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:',
        'if not 0 <= labels.min():'),
    'npz files with bytes changed': attack.Break(
        'fedu_jax/data/npz.py',
        'except Exception as error:  # a damaged file can',
        'except OSError as error:  # a damaged file can'),
    'pickles in npz files': attack.Break(
        'fedu_jax/data/npz.py', 'allow_pickle=False', 'allow_pickle=True'),
    'caches damaged or swapped': attack.Break(
        'fedu_jax/data/decoded_cache.py', 'and fits(arrays := load(path)):',
        'and (arrays := load(path)):'),
    'TFDS files damaged': attack.Break(
        'fedu_jax/data/tfds_reader.py', 'except Exception as error:\n    raise '
        "BadInput(\n        f'data.source tfds: {builder.name} in",
        'except KeyError as error:\n    raise '
        "BadInput(\n        f'data.source tfds: {builder.name} in"),
    "sources of one's own": attack.Break(
        'fedu_jax/data/own_source.py',
        "dataset.checked(arrays, source, 'function')", 'Dataset(**arrays)')}


# As what else than usual a folder is read.
_SEEN = 'eager', '', 'pad', '12', 'seen'


class _Attempts:
  """Counts attempts and losses."""

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
  """Makes a client with these files and a sound one, and a second client."""
  for name, content in {'a/0.png': encoded('PNG'), 'b/0.png': encoded('PNG'),
                        'b/1.png': encoded('PNG'), **{
                            f'a/{k}': v for k, v in contents.items()}}.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
  return root


def _images(order, load) -> Iterator[tuple[str, str]]:
  """Reads each kind of file alone, at once and row by row."""
  chosen = specimens.files()
  if order.short:  # all that are skipped, and some that are read
    chosen = {name: x for i, (name, x) in enumerate(chosen.items())
              if x[1] == SKIPPED or i % 3 == 0}
  for number, (name, (content, verdict)) in enumerate(chosen.items()):
    root = _folder(order.folder / f'kind{number}', {name: content})
    for how in ((), ('lazy',), _SEEN)[:1 if order.short else None]:
      done = load(f'folder:{root}', *(how or ('eager',)))
      if how == ('lazy',):
        yield f'{name}, lazy', judged(
            done, READ if verdict == READ else 'several hosts skip none')
        continue
      want = '4 0 ' if verdict == READ else '3 1 '
      yield f'{name} {how}', judged(done, READ) or (
          '' if done.stdout.startswith(want) else f'{done.stdout!r} not {want}')
    shutil.rmtree(root)


def _fuzzed_images(order, load) -> Iterator[tuple[str, str]]:
  """Reads folders of twenty damaged files: each is read or skipped."""
  draw = random.Random(order.seed)
  whole = [encoded(x) for x in ('PNG', 'JPEG', 'GIF', 'WEBP', 'TIFF', 'BMP',
                                 'JPEG2000', 'ICO')]
  whole += [specimens.deep_colours(), encoded('TIFF', specimens.wide()),
            encoded('PNG', specimens.wide()), encoded('JPEG', specimens.wide())]
  whole += [content for content, verdict in specimens.files().values()
            if verdict == READ and len(content) < 10_000]
  for number in range(3 if order.short else 50):
    contents = {f'{i}.png': specimens.mutated(draw.choice(whole), draw)
                for i in range(1, 21)}
    root = _folder(order.folder / f'fuzz{number}', contents)
    done = load(f'folder:{root}', *(_SEEN if number % 2 else ('eager',)))
    wrong = judged(done, READ)
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
      (root / name / '0.png').write_bytes(encoded('PNG'))

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
    yield name, judged(load(f'folder:{root}', 'eager'), words)
  for what, words in (('nowhere', 'no folder'), ('kind', 'no folders')):
    (order.folder / 'kind').mkdir(exist_ok=True)
    yield what, judged(load(f'folder:{order.folder / what}', 'eager'), words)


def _wrong_npz(order, load) -> Iterator[tuple[str, str]]:
  path = order.folder / 'x.npz'
  for name, (content, words) in specimens.npzs().items():
    path.write_bytes(content)
    for lazy in ('eager',) if order.short else ('eager', 'lazy'):
      yield f'{name}, {lazy}', judged(load(f'npz:{path}', lazy), words)
  path.unlink()
  os.mkfifo(path)
  for what in (path, order.folder, order.folder / 'none.npz', '/dev/zero'):
    yield str(what), judged(load(f'npz:{what}', 'eager'), 'there is no file')
  path.unlink()


def _fuzzed_npz(order, load) -> Iterator[tuple[str, str]]:
  draw = random.Random(order.seed)
  arrays = dict(train_images=np.zeros((12, 4, 4, 3), np.uint8),
                train_labels=np.arange(12) % 3)
  whole = [specimens.npz(**arrays), specimens.npz(True, **arrays)]
  path = order.folder / 'fuzzed.npz'
  for number in range(15 if order.short else 300):
    path.write_bytes(specimens.mutated(draw.choice(whole), draw))
    done = load(f'npz:{path}', draw.choice(('eager', 'lazy')))
    yield f'{number} of seed {order.seed}', judged(
        done, '' if done.returncode else READ)


def _pickles(order, load) -> Iterator[tuple[str, str]]:
  """Puts pickles into the npz and the cache; the payload makes a folder."""
  made = order.folder / 'made by a pickle'
  payload = np.array([specimens.Payload(made)], object)
  path = order.folder / 'pickled.npz'
  for name in ('train_images', 'train_labels'):
    path.write_bytes(specimens.npz(**{
        'train_images': np.zeros((1, 4, 4, 3), np.uint8), name: payload}))
    for lazy in ('eager', 'lazy'):
      yield f'{name}, {lazy}', judged(
          load(f'npz:{path}', lazy), 'plain') or (
              'it was run' if made.exists() else '')
      shutil.rmtree(made, ignore_errors=True)
  root = _folder(order.folder / 'pickled', {})
  load(f'folder:{root}', 'eager')
  cached, = root.glob('.fedu_jax-*')
  for content in (
      _cache(order.folder, images=np.zeros((3, 8, 8, 3), np.uint8),
             owners=payload, skipped=payload),
      specimens.npy(payload), pickle.dumps(specimens.Payload(made))):
    cached.write_bytes(content)
    yield 'cache', judged(load(f'folder:{root}', 'eager'), READ) or (
        'it was run' if made.exists() else '')


def _cache(folder: pathlib.Path, images: np.ndarray, **small: np.ndarray
           ) -> bytes:
  """The content of a cache file of decoded images, with sound checksums."""
  images, path = np.ascontiguousarray(images), folder / 'a cache'
  with contextlib.closing(row_file.Part(
      path, images.shape[1:], images.dtype, lasting=False)) as part:
    part.write(0, images)
    part.finish(path, np.array(list(map(row_file.sum_of, images)), np.uint32),
                small)
  return path.read_bytes()


def _caches(order, load) -> Iterator[tuple[str, str]]:
  """Puts various files in the place of a cache; the data stays the same."""
  draw = random.Random(order.seed)
  root = _folder(order.folder / 'cached', {'1.png': b'no image'})
  want = load(f'folder:{root}', 'eager').stdout
  cached, = root.glob('.fedu_jax-*')
  whole = cached.read_bytes()
  images, small = row_file.opened(cached)
  right = {'images': images[:], **small}
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
  contents = [_cache(order.folder, **x) for x in swapped] + [
      b'', b'junk', whole[:100]] + [
      specimens.mutated(whole, draw) for _ in range(10 if order.short else 150)]
  for number, content in enumerate(contents):
    cached.write_bytes(content)
    done = load(f'folder:{root}', 'eager')
    yield f'{number} of seed {order.seed}', judged(done, READ) or (
        '' if done.stdout == want else 'other images than before')


def _tfds(order, load) -> Iterator[tuple[str, str]]:
  """Prepares a small CIFAR-10 and damages each file in turn."""
  root = order.folder / 'tfds'
  specimens.cifar10(root)
  draw = random.Random(order.seed)
  done = load('tfds:cifar10', 'eager', str(root))  # shows bars on stderr
  yield 'prepared', '' if not done.returncode else done.stderr[-400:]
  for cached in root.rglob('.fedu_jax-*'):
    cached.unlink()
  shutil.rmtree(root / 'downloads')
  sound = {x: load('tfds:cifar10', x, str(root)).stdout
           for x in ('eager', 'lazy')}
  for cached in root.rglob('.fedu_jax-*'):
    cached.unlink()
  paths = sorted(p for p in (root / 'cifar10').rglob('*') if p.is_file())
  damages: list[Callable[[bytes], bytes | None]] = [
      lambda x: b'', lambda x: x[:len(x) // 2], lambda x: None]
  if not order.short:
    damages += [lambda x: specimens.mutated(x, draw)] * 8
  for path, (number, damage) in itertools.product(paths, enumerate(damages)):
    if order.short and number != len(path.name) % 3:
      continue
    whole = path.read_bytes()
    content = damage(whole)
    path.unlink() if content is None else path.write_bytes(content)
    for lazy in ('eager', 'lazy'):
      done = load('tfds:cifar10', lazy, str(root))
      # What is cut or gone may matter to nothing, but never in silence.
      yield f'{path.name}, {number}, {lazy}', judged(
          done, '' if done.returncode else READ) or (
              'other images than before' if number < 3 and not done.returncode
              and done.stdout != sound[lazy] else '')
    for cached in root.rglob('.fedu_jax-*'):
      cached.unlink()
    path.write_bytes(whole)


ROWS = {
    'image files of every kind': _images,
    'images with bytes changed': _fuzzed_images,
    'folders that cannot be read': _folders,
    'npz files that are wrong': _wrong_npz,
    'npz files with bytes changed': _fuzzed_npz,
    'pickles in npz files': _pickles,
    'caches damaged or swapped': _caches,
    'TFDS files damaged': _tfds,
    "sources of one's own": own_sources.attempts}


def run(order: attack.Order, rows: tuple[str, ...] = tuple(ROWS)
        ) -> dict[str, attack.Outcome]:
  """Reads the data of each row, in processes of their own."""
  found = {}
  with forks.Forks('fedu_jax.data.sources', 'fedu_jax.runtime.cli',
                   'fedu_jax.data.tfds_reader', JAX_PLATFORMS='cpu') as server:
    def load(*argv: str) -> subprocess.CompletedProcess:
      return server.run('tests.faults.load', *argv)
    for row in filter(order.wants, rows):
      attempts = _Attempts(row, order.say)
      for what, wrong in ROWS[row](order, load):
        attempts.add(what, wrong)
      found[row] = attempts.outcome()
  return found
