"""A federation with clients in a store; a cohort is streamed to the devices.

The memory of the devices does not depend on the number of clients. A cohort may
train in slices. While one slice trains, the slice before it is written back to
the store, and the next one is fetched.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core import local_training
from fedu_jax.core.state import (
  Array,
  ClientState,
  Metrics,
  Online,
  PyTree,
)
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import partial_sums
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine import slice_program
from fedu_jax.training.engine.client_store import Store
from fedu_jax.training.engine.federation import Federation
from fedu_jax.training.engine.federation import Run
from fedu_jax.training.engine.federation import Start
from fedu_jax.training.engine.recipe import Recipe


class Slice(NamedTuple):
  """A slice of a cohort on the devices; rows after those of `who` are padding.
  """
  who: np.ndarray  # [<= M] the clients' ids, on the host
  ids: Array  # [M] i32
  clients: ClientState
  images: Any  # what `images_of` returns; None after the training


class ClientsStreamed(Federation):
  """One federation; its number is 0.

  Attributes:
    recipe: its recipe, which knows whether steps are skipped.
    layout: the layout of a slice.
    examples: the training data, on the host.
    most: the number of images of the largest client.
    overlap: whether clients move while others train.
    client: one client before its first round, on the host.
    server: the server.
    rng: the run's key.
    by_client: the sharding of a slice.
  """

  def __init__(self, start: Start, saved: Checkpoints, *, recipe: Recipe,
               examples: PyTree, layout: device_mesh.Layout,
               make_store: Callable[..., Store], overlap: bool = True):
    """Restores a federation, or makes a new one.

    Args:
      start: the start of the federation.
      saved: its checkpoints.
      recipe: its recipe.
      examples: the training data: images [N, H, W, C], or Labelled. They
        stay on the host.
      layout: the layout of a slice, with the clients that train at once.
      make_store: (client, num_examples) -> the store.
      overlap: whether to move clients while others train. False serves to
        measure the effect.
    """
    self.recipe = recipe.with_full_steps([list(map(len, start.parts))],
                                          slice_=layout.padded)
    self.layout = layout
    self.examples, self._parts = examples, start.parts
    self.most = max(map(len, start.parts))
    self.overlap = overlap
    self._sizes = np.array([len(part) for part in start.parts], np.float32)
    self._sample = jax.jit(functools.partial(
        round_program.draw_cohort, recipe))
    self._slices = functools.lru_cache(maxsize=2)(self._draw)
    rng = jax.random.key(start.seed)
    server, one = round_program.init_state(
        recipe, start.online, self._sizes[:1], rng,
        jnp.zeros((1, *jax.tree.leaves(examples)[0].shape[1:])))
    self._everywhere = layout.sharding(device_mesh.EVERYWHERE)
    self.by_client = layout.sharding(device_mesh.BY_CLIENT)
    self.server, self.rng = jax.device_put((server, rng), self._everywhere)
    self.client = jax.tree.map(lambda x: x[0], jax.device_get(one))
    self._store = make_store(self.client, self._sizes)
    self._ahead: Slice | None = None
    self._left: Slice | None = None  # the slice that trained last
    self._stored = True  # whether the store has that slice
    if restored := saved.restore(self.state(0)):
      self.server, clients, self.rng = restored
      self._store.restore(clients)
    self.done = int(self.server.round)

  def compile(self) -> None:
    first = self._ahead = self.fetch(self._slices(self.done)[0], self.done)
    aggregate = self.recipe.aggregation.fn
    sums = slice_program.sums_of(self.recipe, self.server, first.clients,
                                 self.layout)
    uploads = self.compile_training(first, sums)

    def finish(server, uploads):
      if self.recipe.in_sums:
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], self.client)
        return partial_sums.conclude(aggregate, server, one, uploads)
      # Without the padding of a cohort on several devices.
      return aggregate(server, jax.tree.map(
          lambda x: x[:self.layout.num_clients], uploads))

    def patch(rows, trained, to, where):
      return jax.tree.map(
          lambda x, y: x.at[to].set(y[where], mode='drop'), rows, trained)
    self._nothing = jax.jit(lambda: jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), sums),
        out_shardings=self._everywhere)
    # All programs are compiled now, so that no later round has to wait.
    self._finish = jax.jit(
        finish, donate_argnums=0, out_shardings=self._everywhere).lower(
            self.server, uploads).compile()
    rows = jax.device_put(np.zeros(self.layout.padded, np.int32),
                          self._everywhere)
    self._patch = jax.jit(
        patch, donate_argnums=0, out_shardings=self.by_client).lower(
            first.clients, first.clients, rows, rows).compile()

  @property
  def where(self) -> str:
    mesh, size = self.layout.mesh, self.layout.num_clients
    return (f' for {size} of {len(self._parts)} clients at once'
            + (f' on {mesh.size} devices' if mesh else ''))

  def compile_training(self, first: Slice, sums: PyTree) -> PyTree:
    """Compiles what `train` runs, and sets `compiled`.

    Args:
      first: a slice.
      sums: the shapes of the sums over earlier slices.

    Returns:
      The shapes of the uploads, which `train` returns last.
    """
    del sums
    self.compiled = slice_program.compile_slice(
        self.recipe, self.server, first.clients, first.images, first.ids,
        self.rng, layout=self.layout)
    *_, uploads = self.compiled.out_info
    return uploads

  def train(self, now: Slice, uploads: PyTree
            ) -> tuple[ClientState, Metrics, PyTree]:
    """Starts to train a slice, whose buffers are consumed.

    Args:
      now: the slice.
      uploads: the sums over earlier slices.

    Returns:
      The clients after it, their metrics, and their uploads or the sums.
    """
    with jax.transfer_guard('disallow_explicit'):
      return self.compiled(self.server, now.clients, now.images, now.ids,
                           self.rng, uploads)

  def advance(self) -> list[Metrics]:
    here: list[tuple[np.ndarray | None, int]] = [
        (who, self.done) for who in self._slices(self.done)]
    if self.done + 1 < self.recipe.rounds:
      here += [(self._slices(self.done + 1)[0], self.done + 1)]
    else:
      here += [(None, self.done)]
    uploads = self._nothing()
    found: list[Any] = []
    for following, round_ in here[1:]:
      now, self._ahead = self._ahead, None
      assert now is not None
      if following is not None:
        self.foresee(following, round_)
      clients, metrics, uploads = self.train(self._patched(now), uploads)
      if not self.overlap:
        jax.block_until_ready(clients)
      self.put_back()
      self._left = Slice(now.who, now.ids, clients, None)
      self._stored = False
      found.append((len(now.who), metrics))
      if following is not None:
        self._ahead = self.fetch(following, round_)
    self.server = self._finish(self.server, uploads)
    parts = [jax.tree.map(lambda x: x[:count], metrics)
             for count, metrics in jax.device_get(found)]
    self.done += 1
    return [jax.tree.map(lambda *x: np.concatenate(x), *parts)]

  def state(self, i: int) -> Run:
    self.put_back()
    return Run(self.server, self._store.snapshot(), self.rng)

  def online(self, i: int) -> Online:
    return jax.device_put(self.server.online, jax.devices()[0])

  def files(self) -> Sequence[pathlib.Path]:
    return self._store.named()

  def keep_from(self, rounds: int) -> None:
    self._store.keep_from(rounds)

  def _draw(self, round_: int) -> list[np.ndarray]:
    """Draws the clients of a round, in slices of the layout's size."""
    ids = np.arange(len(self._parts))
    if self.recipe.is_sampled(len(ids)):
      ids = np.asarray(self._sample(self.rng, np.int32(round_), self._sizes))
    size = self.layout.num_clients
    return [ids[i:i + size] for i in range(0, len(ids), size)]

  def foresee(self, who: np.ndarray, round_: int) -> None:
    """Prepares to fetch clients, before the training of the slice before."""

  def fetch(self, who: np.ndarray, round_: int) -> Slice:
    """Copies clients from the store to the devices, with their images.

    Args:
      who: the clients' ids, [<= M].
      round_: the round that they train in, counted from 0.
    """
    blank = jax.tree.map(
        lambda x: np.repeat(np.asarray(x)[None], self._padding(who), 0),
        self.client._replace(num_examples=np.float32(0)))
    rows = jax.tree.map(lambda *x: np.concatenate(x), self._store.take(who),
                        blank)
    return Slice(who, self.ids_of(who), jax.device_put(rows, self.by_client),
                 self.images_of(who, round_))

  def images_of(self, who: np.ndarray, round_: int) -> Any:
    """Copies the images of clients to the devices. Arguments as in `fetch`."""
    del round_
    return local_training.client_arrays(
        self.examples, self.parts_of(who), self.by_client, most=self.most)

  def _padding(self, who: np.ndarray) -> int:
    return self.layout.padded - len(who)

  def ids_of(self, who: np.ndarray) -> Array:
    """The ids of a slice on the devices, [M] i32."""
    ids = np.concatenate([who, np.full(self._padding(who), len(self._parts))])
    return jax.device_put(ids.astype(np.int32), self.by_client)

  def parts_of(self, who: np.ndarray) -> list[np.ndarray]:
    """For each client of a slice, the rows of the data that it owns."""
    return [self._parts[i] for i in who] + [
        self._parts[0][:0]] * self._padding(who)

  def _patched(self, now: Slice) -> Slice:
    """Replaces clients that were fetched before their last training ended."""
    left = self._left
    if left is None:
      return now
    _, to, where = np.intersect1d(now.who, left.who, return_indices=True)
    if not len(to):
      return now
    nowhere = np.full(self.layout.padded - len(to), self.layout.padded)
    to, where = jax.device_put(
        [np.concatenate([x, nowhere]).astype(np.int32) for x in (to, where)],
        self._everywhere)
    return now._replace(
        clients=self._patch(now.clients, left.clients, to, where))

  def put_back(self) -> None:
    """Writes the slice that trained last to the store, if not done yet."""
    if self._left is None or self._stored:
      return
    count = len(self._left.who)
    self._store.put(self._left.who, jax.tree.map(
        lambda x: x[:count], jax.device_get(self._left.clients)))
    self._stored = True
