"""Calls a function on files in threads; Pillow decodes without Python's lock.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import concurrent.futures
import os
from typing import TypeVar

from fedu_jax.data import image_files

Result = TypeVar('Result')

_MOST_THREADS = 16
_AHEAD = 64  # files in the queue of each thread
_MOST_BYTES = 2**26  # of the results that wait in the queue


def in_order(numbers: Iterable[int], act: Callable[[int], Result],
             size: int) -> Iterator[tuple[int, Result]]:
  """Calls `act` on numbers in threads; yields numbers and results in order.

  Args:
    numbers: the numbers of files.
    act: decodes a file.
    size: bytes of a result. It limits how many results wait to be taken.
  """
  threads = _threads()
  most = max(2 * threads, min(threads * _AHEAD, _MOST_BYTES // size))
  with (image_files.quiet(),
        concurrent.futures.ThreadPoolExecutor(threads) as pool):
    waiting: collections.deque[
        tuple[int, concurrent.futures.Future[Result]]] = collections.deque()
    try:
      for number in map(int, numbers):
        waiting.append((number, pool.submit(act, number)))
        if len(waiting) == most:
          first, result = waiting.popleft()
          yield first, result.result()
      while waiting:
        first, result = waiting.popleft()
        yield first, result.result()
    finally:
      pool.shutdown(cancel_futures=True)


def _threads() -> int:
  """The number of decoding threads: one for each core of this process."""
  return min(_MOST_THREADS, len(os.sched_getaffinity(0)) if hasattr(
      os, 'sched_getaffinity') else os.cpu_count() or 1)
