"""Where the state of clients lies that do not train now: memory, or files.

A store holds K clients as NumPy arrays, hands out copies of some, and takes
them back when they have trained. What of it a checkpoint must hold, it says.
"""

from collections.abc import Sequence
import contextlib
import pathlib
from typing import Protocol

from flax import serialization
import jax
import numpy as np

from fedu_jax.core.state import ClientState, PyTree
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput


class Store(Protocol):
  """What either store does; ids are [M], each once."""

  def take(self, ids: np.ndarray) -> ClientState:
    """Copies some clients, stacked [M, ...]."""

  def put(self, ids: np.ndarray, rows: ClientState) -> None:
    """Replaces some clients by what they have become."""

  def snapshot(self) -> PyTree:
    """What a checkpoint holds of the clients, not a copy.

    Raises:
      OSError: what it names could not be written.
    """

  def named(self) -> Sequence[pathlib.Path]:
    """The files, sealed, that the last `snapshot` names."""

  def restore(self, saved: PyTree) -> None:
    """Goes back to what a checkpoint holds."""

  def keep_from(self, rounds: int) -> None:
    """Lets go of what no checkpoint needs that has so many rounds or more."""


class InMemory:
  """All clients in the host's memory; a checkpoint holds them all."""

  def __init__(self, client: ClientState, num_examples: np.ndarray):
    """Makes clients that have not trained.

    Args:
      client: one of them, without a leading axis.
      num_examples: [K] f32, their data sizes.
    """
    self._clients = jax.tree.map(
        lambda x: np.repeat(x[None], len(num_examples), 0), client
    )._replace(num_examples=num_examples.copy())

  def take(self, ids: np.ndarray) -> ClientState:
    return jax.tree.map(lambda x: x[ids], self._clients)

  def put(self, ids: np.ndarray, rows: ClientState) -> None:
    def assign(x, y):
      x[ids] = y
    jax.tree.map(assign, self._clients, rows)

  def snapshot(self) -> ClientState:
    return self._clients

  def named(self) -> Sequence[pathlib.Path]:
    return ()

  def restore(self, saved: ClientState) -> None:
    self._clients = jax.tree.map(np.array, saved)  # which may be written to

  def keep_from(self, rounds: int) -> None:
    del rounds


class OnDisk:
  """One file for each client that has trained, and for each time it has.

  A checkpoint then holds no more than when each client last trained, and its
  cost does not grow with the clients' networks: their files are there already,
  and stay as long as a checkpoint names them. Clients that have not trained
  take no space. Those whose files could not be written stay in memory, until
  they can be.
  """

  def __init__(self, client: ClientState, num_examples: np.ndarray,
               folder: pathlib.Path):
    """Makes clients that have not trained; arguments as for `InMemory`.

    Args:
      client: one of them, without a leading axis.
      num_examples: [K] f32, their data sizes.
      folder: of the files; those of an earlier start stay until `restore`.
    """
    self._client, self._num_examples = client, num_examples
    self._folder = folder
    try:
      folder.mkdir(parents=True, exist_ok=True)  # tells what kind of run it is
    except OSError as error:
      raise BadInput(f'{folder} cannot be made ({error.strerror}): choose '
                     'another --workdir') from error
    self._last = np.full(len(num_examples), -1, np.int32)  # rounds
    self._unwritten: dict[pathlib.Path, bytes] = {}
    self._unsynced: set[pathlib.Path] = set()  # the power could take them
    # Files that a later one replaces, by the round that wrote the later one.
    self._replaced: list[tuple[int, pathlib.Path]] = []
    # Of rounds beyond the checkpoint that this start goes on from.
    self._beyond: set[pathlib.Path] = set()

  def _path(self, client: int, round_: int) -> pathlib.Path:
    # At most a thousand files a folder, or some file systems crawl.
    return self._folder / str(client // 250) / f'{client}-{round_}.msgpack'

  def _is_ours(self, path: pathlib.Path) -> bool:
    """Whether a file has a name of ours; a copy is not used, nor removed."""
    client, _, round_ = path.stem.partition('-')
    return (client.isdecimal() and round_.isdecimal()
            and int(client) < len(self._last)
            and path == self._path(int(client), int(round_)))

  def _one(self, client: int) -> ClientState:
    start = self._client._replace(num_examples=self._num_examples[client])
    if self._last[client] < 0:
      return start
    path = self._path(client, self._last[client])
    data = self._unwritten.get(path)
    try:
      return serialization.from_bytes(
          start, durable_files.unsealed(path) if data is None else data)
    except durable_files.Damaged as error:
      raise BadInput(f'{error}, since this start began: start again, and it '
                     'goes on from what is sound') from error

  def take(self, ids: np.ndarray) -> ClientState:
    return jax.tree.map(lambda *x: np.stack(x), *map(self._one, ids))

  def put(self, ids: np.ndarray, rows: ClientState) -> None:
    for i, client in enumerate(ids):
      row = jax.tree.map(lambda x: x[i], rows)
      path = self._path(client, int(row.last_round))
      before = self._path(client, self._last[client])
      if 0 <= self._last[client] < row.last_round and (
          self._unwritten.pop(before, None) is None):  # or nobody names it
        self._replaced.append((int(row.last_round), before))
      self._beyond.discard(path)
      self._unwritten[path] = serialization.to_bytes(row)
      self._last[client] = row.last_round
    with contextlib.suppress(OSError):  # `snapshot` tries again, and says so
      self._write()

  def _write(self) -> None:
    for path, data in list(self._unwritten.items()):
      path.parent.mkdir(parents=True, exist_ok=True)
      durable_files.write(path, durable_files.seal(data), lasting=False)
      del self._unwritten[path]
      self._unsynced.add(path)

  def snapshot(self) -> np.ndarray:
    self._write()
    # With the names of folders that may be new.
    for path in {x for path in self._unsynced
                 for x in (path, *path.parents[:3])}:
      if path.exists():  # not one that has been replaced since
        durable_files.sync(path)
    self._unsynced = set()
    return self._last

  def named(self) -> Sequence[pathlib.Path]:
    return [self._path(client, self._last[client])
            for client in np.flatnonzero(self._last >= 0).tolist()]

  def restore(self, saved: np.ndarray) -> None:
    """Goes back to what a checkpoint holds.

    Files of later rounds stay until there is a checkpoint anew, lest one that
    is only unreadable today should miss them.
    """
    self._last = np.array(saved)
    self._unwritten, self._replaced = {}, []
    self._unsynced, self._beyond = set(), set()
    for path in self._folder.glob(f'*/*-*.msgpack{durable_files.PART}'):
      durable_files.remove(path)
    for path in filter(self._is_ours, self._folder.glob('*/*-*.msgpack')):
      client, round_ = map(int, path.stem.split('-'))
      if round_ > self._last[client]:
        self._beyond.add(path)
      elif round_ < self._last[client]:
        self._replaced.append((int(self._last[client]), path))

  def keep_from(self, rounds: int) -> None:
    left = []
    for by, path in self._replaced:
      if by < rounds:
        durable_files.remove(path)
      else:
        left.append((by, path))
    self._replaced = left
    for path in self._beyond:
      durable_files.remove(path)
    self._beyond = set()
