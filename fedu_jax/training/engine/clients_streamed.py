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
from fedu_jax.core import trees
from fedu_jax.core.state import (
  Array,
  ClientArrays,
  ClientState,
  Metrics,
  Online,
  PyTree,
  ServerState,
)
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import partial_sums
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.client_store import Store
from fedu_jax.training.engine.federation import Federation
from fedu_jax.training.engine.federation import Run
from fedu_jax.training.engine.federation import Start
from fedu_jax.training.engine.recipe import Recipe


class _Slice(NamedTuple):
  """A slice of a cohort on the devices; rows after those of `who` are padding.
  """
  who: np.ndarray  # [<= M] the clients' ids, on the host
  ids: Array  # [M] i32
  clients: ClientState
  arrays: ClientArrays | None


class ClientsStreamed(Federation):
  """One federation; its number is 0."""

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
    self._recipe = recipe.with_full_steps([list(map(len, start.parts))],
                                          slice_=layout.padded)
    self._layout = layout
    self._examples, self._parts = examples, start.parts
    self._most = max(map(len, start.parts))
    self._overlap = overlap
    self._sizes = np.array([len(part) for part in start.parts], np.float32)
    self._sample = jax.jit(functools.partial(
        round_program.draw_cohort, recipe))
    self._slices = functools.lru_cache(maxsize=2)(self._draw)
    rng = jax.random.key(start.seed)
    server, one = round_program.init_state(
        recipe, start.online, self._sizes[:1], rng,
        jnp.zeros((1, *jax.tree.leaves(examples)[0].shape[1:])))
    self._everywhere = layout.sharding(device_mesh.EVERYWHERE)
    self._by_client = layout.sharding(device_mesh.BY_CLIENT)
    self._server, self._rng = jax.device_put((server, rng), self._everywhere)
    self._client = jax.tree.map(lambda x: x[0], jax.device_get(one))
    self._store = make_store(self._client, self._sizes)
    self._ahead: _Slice | None = None
    self._left: _Slice | None = None  # the slice that trained last
    self._stored = True  # whether the store has that slice
    if restored := saved.restore(self.state(0)):
      self._server, clients, self._rng = restored
      self._store.restore(clients)
    self.done = int(self._server.round)

  def compile(self) -> None:
    first = self._ahead = self.fetch(self._slices(self.done)[0])
    assert first.arrays is not None
    aggregate = self._recipe.aggregation.fn
    self.compiled, sums = compile_slice(
        self._recipe, self._server, first.clients, first.arrays, first.ids,
        self._rng, layout=self._layout)

    def finish(server, uploads):
      if self._recipe.in_sums:
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], self._client)
        return partial_sums.conclude(aggregate, server, one, uploads)
      # Without the padding of a cohort on several devices.
      return aggregate(server, jax.tree.map(
          lambda x: x[:self._layout.num_clients], uploads))

    def patch(rows, trained, to, where):
      return jax.tree.map(
          lambda x, y: x.at[to].set(y[where], mode='drop'), rows, trained)
    self._nothing = jax.jit(lambda: jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), sums),
        out_shardings=self._everywhere)
    # All programs are compiled now, so that no later round has to wait.
    *_, uploads = self.compiled.out_info
    self._finish = jax.jit(
        finish, donate_argnums=0, out_shardings=self._everywhere).lower(
            self._server, uploads).compile()
    rows = jax.device_put(np.zeros(self._layout.padded, np.int32),
                          self._everywhere)
    self._patch = jax.jit(
        patch, donate_argnums=0, out_shardings=self._by_client).lower(
            first.clients, first.clients, rows, rows).compile()

  @property
  def where(self) -> str:
    mesh, size = self._layout.mesh, self._layout.num_clients
    return (f' for {size} of {len(self._parts)} clients at once'
            + (f' on {mesh.size} devices' if mesh else ''))

  def advance(self) -> list[Metrics]:
    here = self._slices(self.done)
    after = (self._slices(self.done + 1)[0]
             if self.done + 1 < self._recipe.rounds else None)
    uploads = self._nothing()
    found: list[Any] = []
    for following in [*here[1:], after]:
      now, self._ahead = self._ahead, None
      assert now is not None
      now = self._patched(now)
      with jax.transfer_guard('disallow_explicit'):
        clients, metrics, uploads = self.compiled(
            self._server, now.clients, now.arrays, now.ids, self._rng, uploads)
      if not self._overlap:
        jax.block_until_ready(clients)
      self.put_back()
      self._left = _Slice(now.who, now.ids, clients, None)
      self._stored = False
      found.append((len(now.who), metrics))
      if following is not None:
        self._ahead = self.fetch(following)
    self._server = self._finish(self._server, uploads)
    parts = [jax.tree.map(lambda x: x[:count], metrics)
             for count, metrics in jax.device_get(found)]
    self.done += 1
    return [jax.tree.map(lambda *x: np.concatenate(x), *parts)]

  def state(self, i: int) -> Run:
    self.put_back()
    return Run(self._server, self._store.snapshot(), self._rng)

  def online(self, i: int) -> Online:
    return jax.device_put(self._server.online, jax.devices()[0])

  def files(self) -> Sequence[pathlib.Path]:
    return self._store.named()

  def keep_from(self, rounds: int) -> None:
    self._store.keep_from(rounds)

  def _draw(self, round_: int) -> list[np.ndarray]:
    """Draws the clients of a round, in slices of the layout's size."""
    ids = np.arange(len(self._parts))
    if self._recipe.is_sampled(len(ids)):
      ids = np.asarray(self._sample(self._rng, np.int32(round_), self._sizes))
    size = self._layout.num_clients
    return [ids[i:i + size] for i in range(0, len(ids), size)]

  def fetch(self, who: np.ndarray) -> _Slice:
    """Copies clients from the store to the devices, with their images."""
    padding = self._layout.padded - len(who)
    blank = jax.tree.map(
        lambda x: np.repeat(np.asarray(x)[None], padding, 0),
        self._client._replace(num_examples=np.float32(0)))
    rows = jax.tree.map(lambda *x: np.concatenate(x), self._store.take(who),
                        blank)
    ids = np.concatenate([who, np.full(padding, len(self._parts))])
    arrays = local_training.client_arrays(
        self._examples, [self._parts[i] for i in who]
        + [self._parts[0][:0]] * padding, self._by_client, most=self._most)
    there = jax.device_put(ids.astype(np.int32), self._by_client)
    return _Slice(who, there, jax.device_put(rows, self._by_client), arrays)

  def _patched(self, now: _Slice) -> _Slice:
    """Replaces clients that were fetched before their last training ended."""
    left = self._left
    if left is None:
      return now
    _, to, where = np.intersect1d(now.who, left.who, return_indices=True)
    if not len(to):
      return now
    nowhere = np.full(self._layout.padded - len(to), self._layout.padded)
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


def compile_slice(recipe: Recipe, server: ServerState, clients: ClientState,
                  arrays: ClientArrays, ids: Array, rng: Array, *,
                  layout: device_mesh.Layout
                  ) -> tuple[jax.stages.Compiled, PyTree]:
  """Compiles the round of a slice of a cohort, for arguments like these.

  The program takes the arguments from `server` to `rng`, and the sums over
  earlier slices. It consumes the buffers of `clients` and of those sums.

  Args:
    recipe: the recipe of the federation.
    server: the server.
    clients: the slice, and padding.
    arrays: the images of the slice.
    ids: the ids of the clients, [M] i32.
    rng: the run's key.
    layout: the layout of a slice.

  Returns:
    The program, and the shapes of the sums; () if the aggregation takes none.
  """
  sums: PyTree = ()
  if recipe.in_sums:
    sums = jax.eval_shape(
        functools.partial(partial_sums.collect, recipe.aggregation.fn),
        server, clients)
  everywhere = layout.sharding(device_mesh.EVERYWHERE)
  start = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=everywhere), sums)
  return _jitted(recipe, layout).lower(
      server, clients, arrays, ids, rng, start).compile(), sums


@functools.lru_cache(maxsize=32)
def _jitted(recipe: Recipe, layout: device_mesh.Layout) -> jax.stages.Wrapped:
  """The round of a slice; JAX compiles it once for each set of shapes."""
  mesh = layout.mesh
  add = functools.partial(trees.weighted_sum,
                          axis=device_mesh.AXIS if mesh else None)

  def train(server, clients, arrays, ids, rng, sums):
    def keep(server, seen):
      """Keeps what the server's aggregation will need of the uploads."""
      return partial_sums.collect(
          recipe.aggregation.fn, server, seen, sums, add=add
      ) if recipe.in_sums else seen
    uploads, clients, metrics = round_program.run_part(
        recipe, server, clients, arrays, ids, rng, aggregate=keep,
        meshed=mesh is not None)
    return clients, metrics, uploads
  if mesh:
    each, all_ = device_mesh.BY_CLIENT, device_mesh.EVERYWHERE
    train = device_mesh.over_clients(
        train, mesh,
        in_specs=(all_, each, each, each, all_, all_),
        out_specs=(each, each, all_ if recipe.in_sums else each))
  # As in `round_program`: arguments are donated even if they are unused.
  return jax.jit(train, donate_argnums=(1, 5), keep_unused=True)
