"""Embeds images part by part, so that a killed process goes on.

The features of some hundred images are a part, a file in a folder beside the
output. When all parts are there, they become the output, which is written as a
whole. The same images and encoder give the same bytes, however often the
process was killed.
"""

from collections.abc import Callable, Iterator
import hashlib
import io
import pathlib

import jax
import numpy as np

from fedu_jax.encoders import about as about_lib
from fedu_jax.encoders import embedding_files
from fedu_jax.encoders.embedding_files import Part
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.encoders.image_rows import Rows
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import json_files
from fedu_jax.runtime.errors import BadInput

_PART = 512  # images of a part; a kill loses one
_KEY = 'key'  # the file that identifies the encoder and images of the parts


def embed(encoder: Encoder, rows: Rows, path: pathlib.Path,
          progress: Callable[[int, int], None] = lambda done, total: None,
          say: Callable[[str], None] = lambda text: None) -> tuple[int, int]:
  """Writes a file of embeddings, from where an earlier start was killed.

  Args:
    encoder: the encoder.
    rows: the images.
    path: the file to write; its suffix says the format.
    progress: called with (images done, all images).
    say: prints a line for the user.

  Returns:
    The number of images that were embedded, and of those that cannot be read.
    A file beside the output, <name>.skipped.json, names the latter, and what
    the listing passed over.

  Raises:
    BadInput: another process writes this file, or no image can be read.
    OSError: a file cannot be written.
  """
  write = embedding_files.writer(path)
  folder = path.with_name(path.name + '.parts')
  folder.mkdir(exist_ok=True)
  with durable_files.held(folder / '.lock') as mine:
    if not mine:
      raise BadInput(f'another process embeds images for {path}: wait for it, '
                     'or choose another --to')
    _begin(folder, _key(encoder, rows), say)
    count = len(rows.names)
    starts = range(0, count, _PART)
    files = [folder / f'{start:012d}.npz' for start in starts]
    done = min(count, _PART * sum(map(_is_sound, files)))
    progress(done, count)
    for start, file in zip(starts, files):
      if not file.exists():
        numbers = range(start, min(start + _PART, count))
        durable_files.write(file, durable_files.seal(_part(
            encoder, rows, numbers,
            lambda more: progress(done + more, count))))
        done += len(numbers)
        progress(done, count)
    skipped = [(rows.names[row], reason) for file in files
               for row, reason in zip(*_load(file)[2:])]
    if len(skipped) == count:
      raise BadInput(f'none of the {count} images can be read, such as '
                     f'{skipped[0][0]} ({skipped[0][1]})')
    beside = path.with_name(path.name + '.skipped.json')
    if left := [*rows.passed, *(f'{name} ({reason})'
                                for name, reason in skipped)]:
      json_files.write(beside, left)
    else:
      durable_files.remove(beside)  # of an earlier file of the same name

    def parts() -> Iterator[Part]:
      for file in files:
        kept, features, _, _ = _load(file)
        if len(kept):
          yield Part([rows.names[i] for i in kept],
                     [rows.clients[i] for i in kept],
                     [int(rows.labels[i]) for i in kept], features)
    write(path, parts, encoder.about)
  durable_files.discard(folder)
  return count - len(skipped), len(skipped)


def _key(encoder: Encoder, rows: Rows) -> bytes:
  """A text that is the same only for the same encoder and images."""
  digest = hashlib.sha256(about_lib.to_json(encoder.about).encode())
  for x in jax.tree.leaves(encoder.variables):
    digest.update(np.asarray(x).tobytes())
  digest.update(f'{rows.state} {len(rows.names)} {_PART}'.encode())
  return digest.hexdigest().encode()


def _begin(folder: pathlib.Path, key: bytes, say: Callable[[str], None]
           ) -> None:
  """Removes parts of other images or of another encoder."""
  kept = [x for x in folder.iterdir() if x.name != '.lock']
  if kept and (not (folder / _KEY).exists()
               or (folder / _KEY).read_bytes() != key):
    say('the images or the encoder are no longer those of the earlier start: '
        'beginning anew')
    for each in kept:
      durable_files.remove(each)
  elif kept:
    say('going on from an earlier start')
  durable_files.write(folder / _KEY, key)


def _is_sound(file: pathlib.Path) -> bool:
  """Whether a part is there; one that is damaged is removed."""
  try:
    _load(file)
  except durable_files.Damaged:
    durable_files.remove(file)
    return False
  return True


def _part(encoder: Encoder, rows: Rows, mine: range,
          progress: Callable[[int], None]) -> bytes:
  """Embeds some images; returns the contents of a part's file."""
  kept: list[int] = []
  skipped: dict[int, str] = {}

  def readable() -> Iterator[np.ndarray]:
    for row, result in zip(mine, rows.read(mine)):
      progress(row - mine.start)
      if isinstance(result, str):
        skipped[row] = result
      else:
        kept.append(row)
        yield result
  features = list(encoder.stream(readable()))
  made = io.BytesIO()
  np.savez(made, kept=np.array(kept, np.int64), features=np.concatenate(
      [np.zeros((0, encoder.about.features), np.float32), *features]),
           skipped=np.array(list(skipped), np.int64),
           reasons=np.array(list(skipped.values()), str))
  return made.getvalue()


def _load(file: pathlib.Path) -> tuple[np.ndarray, ...]:
  content = io.BytesIO(durable_files.unsealed(file))
  with np.load(content, allow_pickle=False) as found:
    return tuple(found[name] for name in (
        'kept', 'features', 'skipped', 'reasons'))
