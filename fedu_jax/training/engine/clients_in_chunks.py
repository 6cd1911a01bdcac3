"""A federation whose clients' images are fed to the devices in chunks of steps.

A client's images need not fit a device. While a device trains on a chunk, the
host gathers the images of the next one and copies them; at most two chunks are
on a device. Every random number is that of a client whose images are all there,
and so are the bits of the result.
"""

import collections
from collections.abc import Callable, Iterator
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from fedu_jax.core.chunked_training import Chunk
from fedu_jax.core.state import Array, ClientState, Metrics, PyTree
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training.engine import chunk_feed
from fedu_jax.training.engine import chunk_programs
from fedu_jax.training.engine import clients_streamed
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine.client_store import Store
from fedu_jax.training.engine.federation import Start
from fedu_jax.training.engine.recipe import Recipe


class _Feed(NamedTuple):
  """The images of a slice's clients in a round."""
  work: chunk_programs.Work
  steps: Array  # [M] i32, the steps of each client
  first: list[Chunk]  # on its way; removed when it is used, to free memory
  others: Iterator[Chunk]


class ClientsInChunks(clients_streamed.ClientsStreamed):
  """One federation; each device trains one client at a time."""

  def __init__(self, start: Start, saved: Checkpoints, *, recipe: Recipe,
               examples: PyTree, layout: device_mesh.Layout,
               make_store: Callable[..., Store], length: int,
               overlap: bool = True):
    """Restores a federation, or makes a new one.

    Args:
      start: as for `ClientsStreamed`, and so are the others.
      saved: its checkpoints.
      recipe: its recipe.
      examples: the training data, on the host, mapped from a file, or `Lazy`.
      layout: the layout of a slice: one client on each device.
      make_store: (client, num_examples) -> the store.
      length: n, the steps of a chunk.
      overlap: whether to gather images while others train.
    """
    super().__init__(start, saved, recipe=recipe, examples=examples,
                     layout=layout, make_store=make_store, overlap=overlap)
    self._shapes = chunk_programs.Shapes(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(
            (recipe.batch_size, *x.shape[1:]), x.dtype), examples),
        self.most, length)
    self._draw_work = chunk_programs.draw(self.recipe, self._shapes, layout)
    self._foreseen: dict[tuple[int, ...], chunk_programs.Work] = {}
    # Signs of the end of the last two chunks. Before a third one is copied, the
    # first of them must have been trained.
    self._ends: collections.deque[Array] = collections.deque(maxlen=2)

  @property
  def where(self) -> str:
    return (f'{super().where}, with images in chunks of {self._shapes.length} '
            'steps,')

  def compile_training(self, first: clients_streamed.Slice,
                       sums: PyTree) -> PyTree:
    recipe, layout = self.recipe, self.layout
    feed: _Feed = first.images
    self.compiled = chunk_programs.compile_steps(
        recipe, self._shapes, layout, self.client)
    self._start = chunk_programs.compile_start(
        recipe, self._shapes, layout, self.server, first.clients,
        feed.work.rngs)
    clients, progress = self._start.out_info
    self._end = chunk_programs.compile_end(
        recipe, layout, self.server, first.clients,
        self.compiled.out_info[0], feed.steps, feed.work.arrived, first.ids,
        self.rng, sums)
    *_, uploads = self._end.out_info
    return uploads

  def train(self, now: clients_streamed.Slice, uploads: PyTree
            ) -> tuple[ClientState, Metrics, PyTree]:
    feed: _Feed = now.images
    clients, progress = self._start(self.server, now.clients, feed.work.rngs)
    chunk = feed.first.pop() if feed.first else None
    while chunk is not None:
      progress, end = self.compiled(progress, chunk, feed.work.rngs)
      self._ends.append(end)
      if not self.overlap:
        jax.block_until_ready(end)
      chunk = None  # its memory is free when it has been trained
      chunk = next(feed.others, None)
    return self._end(self.server, clients, progress, feed.steps,
                     feed.work.arrived, now.ids, self.rng, uploads)

  def foresee(self, who: np.ndarray, round_: int) -> None:
    # Asked for now, or the devices would draw it after the training.
    self._foreseen = {(round_, *who): self._work_of(who, round_)}

  def _work_of(self, who: np.ndarray, round_: int) -> chunk_programs.Work:
    sizes = np.array([len(part) for part in self.parts_of(who)], np.int32)
    return self._draw_work(self.rng, np.int32(round_), sizes, self.ids_of(who))

  def images_of(self, who: np.ndarray, round_: int) -> Any:
    work = self._foreseen.pop((round_, *who), None)
    if work is None:
      work = self._work_of(who, round_)
    index, mask = jax.device_get((work.rows, work.mask))
    steps = chunk_feed.steps_of(index, mask)
    chunks = self._copied(chunk_feed.chunks(
        self.examples, self.parts_of(who), index, steps,
        length=self._shapes.length,
        counted=not self._shapes.full(self.recipe)))
    counts = np.array([len(own) for own in steps], np.int32)
    return _Feed(work, jax.device_put(counts, self.by_client),
                 list(itertools.islice(chunks, 1)), chunks)

  def _copied(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Copies chunks to the devices, each when it is asked for."""
    for chunk in chunks:
      if len(self._ends) == 2:
        jax.block_until_ready(self._ends[0])
      yield jax.device_put(chunk, self.by_client)
