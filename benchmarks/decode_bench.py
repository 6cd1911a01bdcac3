"""Times the decoding of a folder of JPEG files: at once, killed and resumed.

  python -m benchmarks.decode_bench --folder=/tmp/decode

The files are patches of scikit-learn's photographs, in one folder for each
client. They are made once and stay in `--folder`; so does the cache, which each
measurement removes first if it needs that. Each load is a process of its own,
whose memory is measured. The pixels after the kill must be those without it.
"""

import argparse
import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
from PIL import Image

from fedu_jax.data import decoded_cache
from fedu_jax.data import folder_listing
from fedu_jax.data import image_files
from fedu_jax.data import sources

_AT_ONCE = 512  # images that are read at a time for the digest


def main(argv: list[str] | None = None) -> None:
  """Makes the files, and measures all that was asked for."""
  flags = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
  flags.add_argument('--folder', required=True, type=pathlib.Path)
  flags.add_argument('--files', type=int, default=20_000)
  flags.add_argument('--clients', type=int, default=20)
  flags.add_argument('--pixels', type=int, default=256, help='of a file')
  flags.add_argument('--size', type=int, default=224, help='data.image_size')
  flags.add_argument('--links', type=int, default=0, help='files in a second '
                     'folder, as hard links, whose state is timed')
  flags.add_argument('--load', action='store_true', help='only loads, once')
  args = flags.parse_args(argv)
  root = args.folder / 'clients'
  if args.load:
    print(json.dumps(_load(root, args.size)))
    return
  _make(root, args)
  found: dict[str, Any] = {}
  for cores in (1, 2):
    _forget(root)
    found[f'at once, {cores} cores'] = _child(args, cores)
  found['second start'] = _child(args)
  _forget(root)
  found['bytes when killed'] = _killed(args, root)
  found['resumed'] = _child(args)
  digests = {x['digest'] for x in found.values() if isinstance(x, dict)}
  if len(digests) != 1:
    raise SystemExit(f'pixels differ: {found}')
  if args.links:
    found['state'] = _state(root, args)
  print(json.dumps(found, indent=1))


def _make(root: pathlib.Path, args) -> None:
  """Writes the files that are not there yet, each by its number alone."""
  from sklearn import datasets
  photographs = [np.asarray(x) for x in datasets.load_sample_images().images]
  for number in range(args.files):
    path = root / f'client{number % args.clients:03}' / f'{number:06}.jpg'
    if path.exists():
      continue
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.RandomState(number)
    whole = photographs[number % len(photographs)]
    top, left = (draw.randint(x - args.pixels + 1) for x in whole.shape[:2])
    patch = whole[top:top + args.pixels, left:left + args.pixels]
    Image.fromarray(patch).save(path, quality=90)


def _load(root: pathlib.Path, size: int) -> dict[str, Any]:
  """Reads the folder, and then all its images in pieces."""
  calls: list[tuple[int, int]] = []
  began = time.perf_counter()
  data = sources.load(f'folder:{root}', image_size=size,
                      progress=lambda *x: calls.append(x))
  seconds = time.perf_counter() - began
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  digest = hashlib.blake2b(digest_size=16)
  began = time.perf_counter()
  for i in range(0, len(data.train_images), _AT_ONCE):
    digest.update(np.asarray(data.train_images[i:i + _AT_ONCE]).data)
  done, total = calls[0] if calls else (0, 0)
  return {'seconds': seconds, 'done before': done, 'peak MB': peak / 1024,
          'files a second': (total - done) / seconds,
          'seconds to read all': time.perf_counter() - began,
          'peak MB after that': resource.getrusage(
              resource.RUSAGE_SELF).ru_maxrss / 1024,
          'images': len(data.train_images), 'digest': digest.hexdigest()}


def _command(args) -> list[str]:
  return [sys.executable, '-m', 'benchmarks.decode_bench', '--load',
          f'--folder={args.folder}', f'--size={args.size}']


def _child(args, cores: int = 0) -> dict[str, Any]:
  """Loads the folder in a process of its own."""
  def limit():
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
  return json.loads(subprocess.run(
      _command(args), check=True, stdout=subprocess.PIPE,
      preexec_fn=limit if cores else None).stdout)


def _killed(args, root: pathlib.Path) -> int:
  """Kills a process when half of the pixels are on disk."""
  with subprocess.Popen(_command(args)) as child:
    while child.poll() is None:
      size = sum(path.stat().st_size for path in root.glob('.fedu_jax-*.part'))
      if size > args.files * args.size**2 * 3 / 2:
        child.kill()
        return size
      time.sleep(0.05)
  raise SystemExit('the process ended before it was killed')


def _forget(root: pathlib.Path) -> None:
  for path in root.glob('.fedu_jax-*'):
    path.unlink()


def _state(root: pathlib.Path, args) -> dict[str, float]:
  """Times the listing and the state of a folder of many hard links."""
  other = args.folder / 'links'
  paths = sorted(root.glob('*/*.jpg'))
  for number in range(args.links):
    to = other / f'client{number % args.clients:03}' / f'{number:06}.jpg'
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
      os.link(paths[number % len(paths)], to)
  began = time.perf_counter()
  found = folder_listing.listed(other, (), image_files.is_image)
  listed = time.perf_counter()
  decoded_cache.state_of([path for mine in found.files for path in mine])
  return {'files': sum(map(len, found.files)), 'seconds to list':
          listed - began, 'seconds of the state': time.perf_counter() - listed}


if __name__ == '__main__':
  main()
