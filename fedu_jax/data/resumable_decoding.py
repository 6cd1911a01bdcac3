"""Decodes files into rows, block by block, so that it can go on after a kill.

Files are decoded in their order, and the rows of those that are skipped are
left out at once. Images whose depth is not known at first get an empty row.
When the largest value of each owner is known, these are decoded again.
"""

from collections.abc import Callable, Iterator, Sequence
import itertools
import time

import numpy as np

from fedu_jax.data import decoding_threads
from fedu_jax.data import row_file
from fedu_jax.data.decoding_journal import Done
from fedu_jax.data.decoding_journal import Entry
from fedu_jax.data.decoding_targets import Job
from fedu_jax.data.decoding_targets import Target
from fedu_jax.data.image_files import Decoded

_BLOCK = 2**25  # bytes of a block's rows, at most
_FILES = 1024  # of a block, at most
_SECONDS = 2.0  # after which a block ends; a kill loses that much work


def decode(job: Job, target: Target,
           progress: Callable[[int, int], None]) -> None:
  """Decodes the files that are not done yet.

  Args:
    job: the files.
    target: the place of the rows. When this returns, row i is that of the i-th
      file that was not skipped, `target.done.sums` has a checksum of each row,
      and `target.done.skipped` all files without a row.
    progress: called with (done, total), first with what was done before.

  Raises:
    OSError: the target cannot be written.
    BadInput: the system denies reading a file.
  """
  done = target.done
  waiting = len(done.most) - done.deep
  progress(done.files - waiting, job.files)
  _decode_all(job, target, progress)
  _decode_deep(job, target, progress)
  if done.late:
    _close_up(target)


def depths(job: Job, done: Done) -> np.ndarray:
  """Returns the depth of each owner's images, [owners] i32; 0: none is deep."""
  found = np.zeros(int(job.owners.max(initial=-1)) + 1, np.int32)
  for file, value in done.most.items():
    owner = job.owners[file]
    found[owner] = max(found[owner], 8, value.bit_length())
  return found


Result = tuple[Decoded | str | int, int]  # of a file, and its row's checksum


def _most(job: Job) -> int:
  """The files of a block, at most."""
  return max(1, min(_FILES, _BLOCK // job.row_bytes))


def _blocks(job: Job, files: Sequence[int], bits: np.ndarray | None
            ) -> Iterator[Iterator[tuple[int, Result]]]:
  """Yields blocks: the files of each in order, with their results."""
  def act(file: int) -> Result:
    found = job.decode(file, 0 if bits is None else int(
        bits[job.owners[file]]))
    return found, row_file.sum_of(found.pixels) if isinstance(
        found, Decoded) else 0
  results = decoding_threads.in_order(files, act, job.row_bytes)

  def block(first: tuple[int, Result]) -> Iterator[tuple[int, Result]]:
    ends = time.monotonic() + _SECONDS
    for one in itertools.chain([first],
                               itertools.islice(results, _most(job) - 1)):
      yield one
      if time.monotonic() >= ends:
        return
  for first in results:
    yield block(first)


def _decode_all(job: Job, target: Target, progress) -> None:
  """Decodes each file once."""
  done = target.done
  for results in _blocks(job, range(done.files, job.files), None):
    rows = np.zeros((min(_most(job), job.files - done.files), *job.row),
                    job.dtype)
    entry: Entry = {'files': 0, 'skipped': [], 'most': [],
                    'notes': [0, 0, 0], 'sums': []}
    first, before = len(done.sums), len(done.most) - done.deep
    for file, (found, value) in results:
      entry['files'] += 1
      if isinstance(found, str):
        entry['skipped'].append((file, found))
      else:
        if isinstance(found, int):
          entry['most'].append((file, found))
        else:
          rows[len(entry['sums'])] = found.pixels
          _note(entry, found)
        entry['sums'].append(value)
      progress(file + 1 - before - len(entry['most']), job.files)
    target.write(first, rows[:len(entry['sums'])])
    target.mark(entry)


def _decode_deep(job: Job, target: Target, progress) -> None:
  """Decodes images again whose depth was not known."""
  done, bits = target.done, depths(job, target.done)
  again = sorted(done.most)[done.deep:]
  places = dict(zip(again, _places(done, again)))
  at = job.files - len(again)
  for results in _blocks(job, again, bits):
    entry: Entry = {'deep': 0, 'late': [], 'changed': [],
                    'notes': [0, 0, 0]}
    for file, (found, value) in results:
      entry['deep'] += 1
      if isinstance(found, Decoded):
        target.write(places[file], found.pixels[None])
        entry['changed'].append((places[file], value))
        _note(entry, found)
      else:
        entry['late'].append((file, str(found)))
      at += 1
      progress(at, job.files)
    target.mark(entry)


def _places(done: Done, files: Sequence[int]) -> list[int]:
  """The rows of files that were not skipped."""
  earlier = np.searchsorted(sorted(done.skipped), files)
  return [int(x) for x in np.asarray(files, np.int64) - earlier]


def _note(entry: Entry, found: Decoded) -> None:
  notes = found.pages, found.cropped, found.unseen
  entry['notes'] = [x + y for x, y in zip(entry['notes'], notes)]


def _close_up(target: Target) -> None:
  """Moves rows over those of files that were skipped late."""
  done = target.done
  target.mark({'moving': True})
  kept = np.delete(np.arange(len(done.sums)),
                   _places(done, sorted(done.late))).tolist()
  for to, row in enumerate(kept):
    if to != row:
      target.write(to, target.read(row, 1))
  done.sums = [done.sums[row] for row in kept]
  done.skipped.update(done.late)
  done.late = {}
