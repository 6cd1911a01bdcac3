"""Keeps the decoded images of a folder in a file, made once and resumable.

One process decodes, and others that start meanwhile wait for it. What a killed
process has decoded is used by the next one. Without room on disk, images are
decoded into memory.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import shutil
import time
from typing import NamedTuple

import numpy as np

from fedu_jax.data import decoded_cache
from fedu_jax.data import resumable_decoding
from fedu_jax.data import row_file
from fedu_jax.data.decoding_journal import Done
from fedu_jax.data.decoding_journal import Journal
from fedu_jax.data.decoding_targets import InFile
from fedu_jax.data.decoding_targets import InMemory
from fedu_jax.data.decoding_targets import Job
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput

# Images of fewer bytes are read into memory when a cache is opened.
_LARGE = 2**28
# Smaller folders are decoded again sooner than a disk has all their blocks.
_LASTING = 2**24
_SECONDS = 0.5  # between two looks at the lock of another process
# Bytes of a journal and a footer for each file, at most, and of both as such.
_RECORD, _RECORDS = 256, 2**16

Arrays = dict[str, np.ndarray]


def stays_on_disk(nbytes: int) -> bool:
  """Whether images of so many bytes are read from the cache when needed."""
  return nbytes > _LARGE


class Cache(NamedTuple):
  """The cache of one decoding of a folder.

  Attributes:
    beside: the folder of the data.
    name: the name of the decoding.
    state: the state of the data, from `decoded_cache.state_of`.
    fits: (images, arrays) -> whether both could be a result.
    shown: the name of the data for messages.
  """
  beside: pathlib.Path
  name: str
  state: str
  fits: Callable[[Images, Arrays], bool]
  shown: str

  def found(self, *, lazy: bool = False) -> tuple[Images, Arrays] | None:
    """Opens the cache, if it is there and sound.

    Args:
      lazy: whether small images too are read only when they are indexed.

    Returns:
      The images and the other arrays; None if there is no cache.
    """
    def load(path):
      images, arrays = row_file.opened(path)
      return (images if lazy or stays_on_disk(images.nbytes) else images[:],
              arrays)
    return decoded_cache.found(
        self.beside, decoded_cache.file_name(self.name, self.state, '.npy'),
        load, lambda x: self.fits(*x))

  def made(self, job: Job, small: Callable[[Done], Arrays],
           progress: Callable[[int, int], None],
           say: Callable[[str], None]) -> tuple[Images, Arrays]:
    """Opens the cache, or decodes all files and fills it.

    Args:
      job: the files.
      small: returns the other arrays when all is decoded.
      progress: called with (done, total) while files are decoded.
      say: prints a line.

    Raises:
      BadInput: neither the disk nor memory has room; or a file cannot be read.
    """
    if (before := self.found()) is not None:
      return before
    path = decoded_cache.folder_of(self.beside) / decoded_cache.file_name(
        self.name, self.state, '.npy')
    begun = None
    with contextlib.ExitStack() as stack:
      try:
        path.parent.mkdir(parents=True, exist_ok=True)
        decoded_cache.tidy(self.beside, self.name, keep=path)
        stack.enter_context(_locked(path, self.shown, say))
        if (before := self.found()) is not None:  # of the process before us
          durable_files.remove(decoded_cache.journal_of(path))
          return before
        _check_room(path, job)
        begun = stack.enter_context(_begun(path, job))
        if begun.done.files:
          say(f'data: {begun.done.files:,} of {job.files:,} files were decoded '
              'by an earlier start')
        resumable_decoding.decode(job, begun, progress)
        arrays = small(begun.done)
        begun.finish(path, arrays)
        durable_files.remove(decoded_cache.journal_of(path))
      except OSError as error:
        why = f'{path.parent}: {durable_files.reason(error)}'
        if not (begun and begun.done.files):
          durable_files.remove(decoded_cache.part_of(path))
          durable_files.remove(decoded_cache.journal_of(path))
      else:
        if (after := self.found()) is not None:
          return after
        why = f'{path} cannot be read'
      self._refuse(job, why)
      say(f'data: the decoded images cannot be kept ({why}); they are decoded '
          'into memory, and again at the next start')
      target = InMemory(job, begun)
    resumable_decoding.decode(job, target, progress)
    return target.rows[:len(target.done.sums)], small(target.done)

  def _refuse(self, job: Job, why: str) -> None:
    """Raises BadInput if the images do not fit memory either."""
    free = min(host_memory.host_bytes(), host_memory.free_bytes())
    if job.nbytes > free:
      raise BadInput(
          f'{self.shown} at {job.row[0]} pixels takes '
          f'{host_memory.shown(job.nbytes)}, which neither fits memory '
          f'({host_memory.shown(free)} free) nor can be kept ({why}): make '
          'room, or choose a smaller data.image_size')


def _check_room(path: pathlib.Path, job: Job) -> None:
  """Raises OSError if the disk has no room for what is not there yet."""
  needed = job.nbytes + job.files * _RECORD + _RECORDS
  with contextlib.suppress(FileNotFoundError):
    needed -= 512 * os.stat(decoded_cache.part_of(path)).st_blocks
  free = shutil.disk_usage(path.parent).free
  if needed > free:
    raise OSError(f'{host_memory.shown(needed)} are needed there, and '
                  f'{host_memory.shown(free)} are free')


@contextlib.contextmanager
def _locked(path: pathlib.Path, shown: str,
            say: Callable[[str], None]) -> Iterator[None]:
  """Locks a cache file that is not there yet; waits for other processes."""
  waiting = False
  while True:
    with durable_files.held(decoded_cache.journal_of(path)) as ours:
      if ours:
        yield
        return
    if not waiting:
      say(f'data: another process decodes {shown}: waiting for it')
      waiting = True
    time.sleep(_SECONDS)


@contextlib.contextmanager
def _begun(path: pathlib.Path, job: Job) -> Iterator[InFile]:
  """Opens the part and the journal, which is locked."""
  lasting = job.nbytes > _LASTING
  about = {'files': job.files, 'row': list(job.row),
           'dtype': np.dtype(job.dtype).str}
  with contextlib.closing(row_file.Part(
      decoded_cache.part_of(path), job.row, job.dtype,
      lasting)) as part, \
      contextlib.closing(Journal(
          decoded_cache.journal_of(path), about, lasting)) as journal:
    yield InFile(part, journal)
