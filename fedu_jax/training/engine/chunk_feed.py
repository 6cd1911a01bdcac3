"""Gathers the images of a round's steps on the host, chunk by chunk."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fedu_jax.core.chunked_training import Chunk
from fedu_jax.core.state import PyTree


def steps_of(index: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
  """Returns the numbers of the steps that each client does.

  Args:
    index: [M, S, B], the rows of each batch.
    mask: [M, S] bool, the steps that are done; None for all.
  """
  if mask is None:
    return [np.arange(index.shape[1])] * len(index)
  return [np.flatnonzero(own) for own in mask]


def chunks(examples: PyTree, parts: Sequence[np.ndarray], index: np.ndarray,
           steps: Sequence[np.ndarray], *, length: int,
           counted: bool) -> Iterator[Chunk]:
  """Yields the chunks of clients that train at once, as NumPy arrays.

  Only the rows of a chunk are read, when it is asked for. `examples` may
  therefore be mapped from a file or `Lazy`.

  Args:
    examples: images u8 or u16 [N, H, W, C], or Labelled.
    parts: for each client, the rows of `examples` that it owns; M of them.
    index: [M, S, B] i32, rows of each client's images.
    steps: the result of `steps_of`.
    length: n, the steps of a chunk.
    counted: whether a chunk says how many of its steps are done. Without it all
      chunks must be full.

  Yields:
    Chunks, [M, ...] each; as many as the client with the most steps needs. Rows
    after a client's last step are zeros.
  """
  most = max(map(len, steps))
  batch = index.shape[2]
  for first in range(0, most, length):
    now = [own[first:first + length] for own in steps]
    rows = [parts[k][index[k][own].reshape(-1)] for k, own in enumerate(now)]

    def gather(x, rows=rows):
      found = np.zeros((len(rows), length * batch, *x.shape[1:]), x.dtype)
      for k, mine in enumerate(rows):
        if len(mine):
          found[k, :len(mine)] = x[mine]
      return found
    numbers: Any = np.zeros((len(now), length), np.int32)
    for k, own in enumerate(now):
      numbers[k, :len(own)] = own
    done: Any = np.array([len(own) for own in now], np.int32)
    yield Chunk(jax.tree.map(gather, examples), numbers,
                done if counted else None)
