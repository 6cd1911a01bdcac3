"""A federation whose clients lie in a store, and come to the devices to train.

What is on the devices does not depend on how many clients there are. A cohort
may come in slices. While one slice trains, the one before goes back to the
store and the next is fetched.
"""

from collections.abc import Callable, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fedu_jax.core import aggregation
from fedu_jax.core import local_training
from fedu_jax.core.state import (
    Array, ClientArrays, ClientState, Metrics, Online, PyTree, ServerState)
from fedu_jax.core import trees
from fedu_jax.models import networks
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training.config import registry
from fedu_jax.training.engine.client_store import Store
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import round_program
from fedu_jax.training import prepare


class _Slice(NamedTuple):
  """Clients on the devices; rows beyond those of `who` are padding."""
  who: np.ndarray  # [<= M] their ids, on the host
  ids: Array  # [M] i32
  clients: ClientState
  arrays: ClientArrays | None


class Travelling:
  """One federation; see `clients_on_device.Resident`, which does the same."""

  def __init__(self, member: prepare.Member, saved: Checkpoints, *,
               config: ml_collections.ConfigDict, nets: networks.Nets,
               examples: PyTree, layout: device_mesh.Layout,
               make_store: Callable[..., Store], overlap: bool = True):
    """Restores a federation, or makes one that has not trained yet.

    Args:
      member: the federation.
      saved: its checkpoints.
      config: of it.
      nets: its networks.
      examples: the data whose rows it owns: images u8 [N, H, W, C], or
        Labelled. They stay on the host.
      layout: of a slice: as many clients as train at once.
      make_store: (client, num_examples) -> the store.
      overlap: move clients while others train; False is for measuring what
        that hides.
    """
    self._config, self._nets, self._layout = config, nets, layout
    self._examples, self._parts = examples, member.parts
    self._most = max(map(len, member.parts))
    self._overlap = overlap
    self._sizes = np.array([len(part) for part in member.parts], np.float32)
    self._sample = jax.jit(round_program.make_sampling(config))
    self._slices = functools.lru_cache(maxsize=2)(self._draw)
    rng = jax.random.key(member.seed)
    server, one = round_program.init_state(
        config, nets, member.online, self._sizes[:1], rng,
        jnp.zeros((1, *jax.tree.leaves(examples)[0].shape[1:])))
    self._everywhere = layout.sharding(device_mesh.EVERYWHERE)
    self._by_client = layout.sharding(device_mesh.BY_CLIENT)
    self._server, self._rng = jax.device_put((server, rng), self._everywhere)
    self._client = jax.tree.map(lambda x: x[0], jax.device_get(one))
    self._store = make_store(self._client, self._sizes)
    self._ahead: _Slice | None = None
    self._left: _Slice | None = None  # trained last
    self._stored = True  # whether the store has what trained last
    if restored := saved.restore(self.state(0)):
      self._server, clients, self._rng = restored
      self._store.restore(clients)
    self.done = int(self._server.round)

  def compile(self) -> None:
    """Makes the programs that `advance` runs."""
    first = self._ahead = self.fetch(self._slices(self.done)[0])
    assert first.arrays is not None
    aggregate = registry.bind(self._config, 'aggregation')
    in_sums = registry.takes(self._config, 'aggregation', 'add')
    self.compiled, sums = compile_slice(
        self._config, self._nets, self._server, first.clients, first.arrays,
        first.ids, self._rng, layout=self._layout)

    def finish(server, uploads):
      if in_sums:
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], self._client)
        return aggregation.conclude(aggregate, server, one, uploads)
      # The padding of a cohort that is on several devices stays out.
      return aggregate(server, jax.tree.map(
          lambda x: x[:self._layout.num_clients], uploads))

    def patch(rows, trained, to, where):
      return jax.tree.map(
          lambda x, y: x.at[to].set(y[where], mode='drop'), rows, trained)
    self._nothing = jax.jit(lambda: jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), sums),
        out_shardings=self._everywhere)
    # All of it now: what is compiled in a later round would make that one slow.
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
    """A few words for the console."""
    mesh, size = self._layout.mesh, self._layout.num_clients
    return (f' for {size} of {len(self._parts)} clients at once'
            + (f' on {mesh.size} devices' if mesh else ''))

  def advance(self) -> list[Metrics]:
    """Does a round; returns its metrics, [M] each, as the only federation's."""
    here = self._slices(self.done)
    after = (self._slices(self.done + 1)[0]
             if self.done + 1 < self._config.rounds else None)
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

  def state(self, i: int) -> prepare.Run:
    """What a checkpoint holds.

    Raises:
      OSError: some clients lie on disk, and could not be written.
    """
    del i
    self.put_back()
    return prepare.Run(self._server, self._store.snapshot(), self._rng)

  def named(self, i: int) -> Sequence[pathlib.Path]:
    """The files beside a checkpoint that it needs."""
    del i
    return self._store.named()

  def saved(self, oldest: int) -> None:
    """Learns that no checkpoint is left of fewer rounds than `oldest`."""
    self._store.keep_from(oldest)

  def online(self, i: int) -> Online:
    """The global network, on one device, which scores it."""
    del i
    return jax.device_put(self._server.online, jax.devices()[0])

  def _draw(self, round_: int) -> list[np.ndarray]:
    """Who trains in a round, as many at once as the layout has room for."""
    ids = np.arange(len(self._parts))
    if round_program.is_sampled(self._config, len(ids)):
      ids = np.asarray(self._sample(self._rng, np.int32(round_), self._sizes))
    size = self._layout.num_clients
    return [ids[i:i + size] for i in range(0, len(ids), size)]

  def fetch(self, who: np.ndarray) -> _Slice:
    """Brings clients to the devices, as the store has them."""
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
    """Replaces clients who were still training when they were fetched."""
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
    """Gives the store what trained last, if it has not got it."""
    if self._left is None or self._stored:
      return
    count = len(self._left.who)
    self._store.put(self._left.who, jax.tree.map(
        lambda x: x[:count], jax.device_get(self._left.clients)))
    self._stored = True


def compile_slice(config: ml_collections.ConfigDict, nets: networks.Nets,
                  server: ServerState, clients: ClientState,
                  arrays: ClientArrays, ids: Array, rng: Array, *,
                  layout: device_mesh.Layout
                  ) -> tuple[jax.stages.Compiled, PyTree]:
  """Compiles what a slice of a cohort does, for arguments like these.

  The compiled program takes the arguments from `server` to `rng`, and the sums
  over the slices before; it consumes `clients` and those sums.

  Args:
    config: the whole config.
    nets: the networks.
    server: the server.
    clients: the slice, and padding.
    arrays: its images.
    ids: [M] i32, who they are.
    rng: the run's key.
    layout: of a slice.

  Returns:
    The program, and the shapes of the sums; () for an aggregation that takes
    none.
  """
  aggregate = registry.bind(config, 'aggregation')
  sums: PyTree = ()
  if registry.takes(config, 'aggregation', 'add'):
    sums = jax.eval_shape(functools.partial(aggregation.collect, aggregate),
                          server, clients)
  everywhere = layout.sharding(device_mesh.EVERYWHERE)
  start = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=everywhere), sums)
  return _jitted(ml_collections.FrozenConfigDict(config), nets, layout,
                 registry.functions(config)).lower(
                     server, clients, arrays, ids, rng, start).compile(), sums


@functools.lru_cache(maxsize=32)
def _jitted(config: ml_collections.FrozenConfigDict, nets: networks.Nets,
            layout: device_mesh.Layout, functions: tuple[Callable, ...]
            ) -> jax.stages.Wrapped:
  """A slice, which JAX traces and compiles once for arguments like these."""
  del functions  # another function of the same name is another slice
  aggregate = registry.bind(config, 'aggregation')
  in_sums = registry.takes(config, 'aggregation', 'add')
  mesh = layout.mesh
  training = round_program.make_training(config, nets, meshed=mesh is not None)

  def train(server, clients, arrays, ids, rng, sums):
    clients, seen, metrics = training(server, clients, arrays, ids, rng)
    uploads = aggregation.collect(
        aggregate, server, seen, sums, add=functools.partial(
            trees.weighted_sum, axis=device_mesh.AXIS if mesh else None)
    ) if in_sums else seen
    return clients, metrics, uploads
  if mesh:
    each, all_ = device_mesh.BY_CLIENT, device_mesh.EVERYWHERE
    train = device_mesh.over_clients(
        train, mesh,
        in_specs=(all_, each, each, each, all_, all_),
        out_specs=(each, each, all_ if in_sums else each))
  # As in `program`: what is consumed is donated, though it may be unused.
  return jax.jit(train, donate_argnums=(1, 5), keep_unused=True)
