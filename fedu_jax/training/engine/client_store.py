"""Stores for the states of clients, in the host's memory or in files.

A store holds K clients as NumPy arrays. It returns copies of a cohort, and
takes the trained cohort back. `snapshot` is its part of a checkpoint.
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
  """The interface of both stores. `ids` are [M], each at most once."""

  def take(self, ids: np.ndarray) -> ClientState:
    """Copies some clients, stacked [M, ...]."""

  def put(self, ids: np.ndarray, rows: ClientState) -> None:
    """Replaces some clients by new states, [M, ...]."""

  def snapshot(self) -> PyTree:
    """Returns the store's part of a checkpoint, not a copy.

    Raises:
      OSError: a file that it names could not be written.
    """

  def named(self) -> Sequence[pathlib.Path]:
    """Returns the sealed files that the last `snapshot` names."""

  def restore(self, saved: PyTree) -> None:
    """Restores the clients of a checkpoint's `snapshot`."""

  def keep_from(self, rounds: int) -> None:
    """Removes files that no checkpoint of `rounds` rounds or more needs."""


class InMemory:
  """Keeps all clients in the host's memory and in each checkpoint."""

  def __init__(self, client: ClientState, num_examples: np.ndarray):
    """Makes K clients that have not trained.

    Args:
      client: one client, without a leading axis.
      num_examples: the clients' data sizes, [K] f32.
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
    self._clients = jax.tree.map(np.array, saved)  # copies are writable

  def keep_from(self, rounds: int) -> None:
    del rounds


class OnDisk:
  """Keeps each client in files, one for each round that it trained in.

  A checkpoint then holds only each client's last round, so its cost does not
  grow with the clients' networks. A client's file stays as long as a checkpoint
  names it. Clients that have not trained take no space. A client stays in
  memory until its file can be written.
  """

  def __init__(self, client: ClientState, num_examples: np.ndarray,
               folder: pathlib.Path):
    """Makes K clients that have not trained.

    Args:
      client: one client, without a leading axis.
      num_examples: the clients' data sizes, [K] f32.
      folder: the folder of the files. Those of an earlier start stay until
        `restore`.
    """
    self._client, self._num_examples = client, num_examples
    self._folder = folder
    try:
      folder.mkdir(parents=True, exist_ok=True)  # marks a run with this store
    except OSError as error:
      raise BadInput(f'{folder} cannot be made ({error.strerror}): choose '
                     'another --workdir') from error
    self._last = np.full(len(num_examples), -1, np.int32)  # rounds
    self._unwritten: dict[pathlib.Path, bytes] = {}
    self._unsynced: set[pathlib.Path] = set()  # a power failure may lose them
    # Files that a later one replaces, with the round of the later one.
    self._replaced: list[tuple[int, pathlib.Path]] = []
    # Files of rounds after the checkpoint that this start resumed from.
    self._beyond: set[pathlib.Path] = set()

  def _path(self, client: int, round_: int) -> pathlib.Path:
    # Few files in a folder: some file systems are slow with many.
    return self._folder / str(client // 250) / f'{client}-{round_}.msgpack'

  def _is_ours(self, path: pathlib.Path) -> bool:
    """Whether a file has a name of ours; other files stay untouched."""
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
          self._unwritten.pop(before, None) is None):  # else it has no file
        self._replaced.append((int(row.last_round), before))
      self._beyond.discard(path)
      self._unwritten[path] = serialization.to_bytes(row)
      self._last[client] = row.last_round
    with contextlib.suppress(OSError):  # `snapshot` tries again and reports it
      self._write()

  def _write(self) -> None:
    for path, data in list(self._unwritten.items()):
      path.parent.mkdir(parents=True, exist_ok=True)
      durable_files.write(path, durable_files.seal(data), lasting=False)
      del self._unwritten[path]
      self._unsynced.add(path)

  def snapshot(self) -> np.ndarray:
    self._write()
    # Their folders too, whose names may be new.
    for path in {x for path in self._unsynced
                 for x in (path, *path.parents[:3])}:
      if path.exists():  # it may have been replaced since
        durable_files.sync(path)
    self._unsynced = set()
    return self._last

  def named(self) -> Sequence[pathlib.Path]:
    return [self._path(client, self._last[client])
            for client in np.flatnonzero(self._last >= 0).tolist()]

  def restore(self, saved: np.ndarray) -> None:
    """Restores the clients of a checkpoint's `snapshot`.

    Files of later rounds stay until there is a new checkpoint, because a later
    checkpoint that cannot be read now may be readable again.
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
