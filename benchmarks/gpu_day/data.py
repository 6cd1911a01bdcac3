"""CIFAR-10 as one small file, and back.

The file holds the stored bytes of each image, compressed together. Images that
are stored as JPEG fit well: what their headers share is kept once. Images that
are stored without loss are too large, and are encoded as JPEG.
"""

import io
import json
import lzma
import pathlib
import sys
from typing import Any

import numpy as np
from PIL import Image

_QUALITY = 90  # of JPEG, if images must be encoded
_ROOM = 30 * 2**20  # bytes of stored images above which they are encoded


def pack(data_dir: str, path: pathlib.Path) -> str:
  """Writes CIFAR-10 of a TFDS folder as one file.

  Args:
    data_dir: TFDS's root.
    path: the file to write.

  Returns:
    What the images in it are, for people.
  """
  import tensorflow_datasets as tfds

  from fedu_jax.data import tfds_reader
  builder = tfds_reader.find('cifar10', data_dir)
  arrays: dict[str, Any] = {}
  for split in ('train', 'test'):
    source: Any = builder.as_data_source(
        split=split, decoders={'image': tfds.decode.SkipDecoding()})
    rows = sorted((source[i] for i in range(len(source))),
                  key=lambda row: row['id'])
    arrays[f'{split}_images'] = [row['image'] for row in rows]
    arrays[f'{split}_labels'] = [int(row['label']) for row in rows]
  images = arrays['train_images'] + arrays['test_images']
  small = _compressed(images)
  lossy = images[0].startswith(b'\xff\xd8')
  note = f'CIFAR-10 as stored in {builder.info.full_name}, as ' + (
      'JPEG, which loses detail' if lossy else 'pixels without loss')
  if len(small) > _ROOM:
    images = [_jpeg(x) for x in images]
    small = _compressed(images)
    note += f'; carried as JPEG of quality {_QUALITY}'
  head = json.dumps({
      'note': note, 'lengths': [len(x) for x in images],
      **{name: arrays[name] for name in arrays if name.endswith('labels')}})
  with lzma.open(path.with_suffix('.labels'), 'wt') as file:
    file.write(head)
  path.write_bytes(small)
  return note


def _compressed(images: list[bytes]) -> bytes:
  return lzma.compress(b''.join(images), preset=1)


def _jpeg(image: bytes) -> bytes:
  made = io.BytesIO()
  Image.open(io.BytesIO(image)).save(made, 'JPEG', quality=_QUALITY,
                                     subsampling=0)
  return made.getvalue()


def unpack(path: pathlib.Path, npz: pathlib.Path, most: int = 0) -> str:
  """Decodes the file into arrays that `data.source=npz:` reads.

  Args:
    path: the file of `pack`.
    npz: the file to write.
    most: the number of images of each split to keep; 0 for all.

  Returns:
    What the images are, for people.
  """
  with lzma.open(path.with_suffix('.labels'), 'rt') as file:
    head = json.load(file)
  stored = lzma.decompress(path.read_bytes())
  ends = np.cumsum(head['lengths'])
  first = 0
  arrays: dict[str, Any] = {}
  for split in ('train', 'test'):
    count = len(head[f'{split}_labels'])
    kept = range(first, first + min(count, most or count))
    arrays[f'{split}_images'] = np.stack([np.asarray(Image.open(io.BytesIO(
        stored[ends[i] - head['lengths'][i]:ends[i]]))) for i in kept])
    arrays[f'{split}_labels'] = np.array(
        head[f'{split}_labels'][:len(kept)], np.int64)
    first += count
  part = npz.with_suffix('.part')
  with open(part, 'wb') as out:
    np.savez(out, **arrays)
  part.rename(npz)
  return head['note']


if __name__ == '__main__':
  print(unpack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]),
               int(sys.argv[3])))
