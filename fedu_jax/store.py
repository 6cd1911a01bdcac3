"""Where the state of clients lies that do not train now: memory, or files.

A store holds K clients as NumPy arrays, hands out copies of some, and takes
them back when they have trained. What of it a checkpoint must hold, it says.
"""

import os
import pathlib
from typing import Protocol

from flax import serialization
import jax
import numpy as np

from fedu_jax.state import ClientState, PyTree


class Store(Protocol):
  """What either store does; ids are [M], each once."""

  def take(self, ids: np.ndarray) -> ClientState:
    """Copies some clients, stacked [M, ...]."""

  def put(self, ids: np.ndarray, rows: ClientState) -> None:
    """Replaces some clients by what they have become."""

  def snapshot(self) -> PyTree:
    """What a checkpoint holds of the clients, not a copy."""

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

  def restore(self, saved: ClientState) -> None:
    self._clients = jax.tree.map(np.array, saved)  # which may be written to

  def keep_from(self, rounds: int) -> None:
    del rounds


class OnDisk:
  """One file for each client that has trained, and for each time it has.

  A checkpoint then holds no more than when each client last trained, and its
  cost does not grow with the clients' networks: their files are there already,
  and stay as long as a checkpoint names them. Clients that have not trained
  take no space.
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
    folder.mkdir(parents=True, exist_ok=True)  # tells what kind of run it is
    self._last = np.full(len(num_examples), -1, np.int32)  # rounds
    # Files that a later one replaces, by the round that wrote the later one.
    self._replaced: list[tuple[int, pathlib.Path]] = []

  def _path(self, client: int, round_: int) -> pathlib.Path:
    # At most a thousand files a folder, or some file systems crawl.
    return self._folder / str(client // 250) / f'{client}-{round_}.msgpack'

  def _one(self, client: int) -> ClientState:
    start = self._client._replace(num_examples=self._num_examples[client])
    if self._last[client] < 0:
      return start
    return serialization.from_bytes(
        start, self._path(client, self._last[client]).read_bytes())

  def take(self, ids: np.ndarray) -> ClientState:
    return jax.tree.map(lambda *x: np.stack(x), *map(self._one, ids))

  def put(self, ids: np.ndarray, rows: ClientState) -> None:
    for i, client in enumerate(ids):
      row = jax.tree.map(lambda x: x[i], rows)
      path = self._path(client, int(row.last_round))
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(serialization.to_bytes(row))
      if 0 <= self._last[client] < row.last_round:
        self._replaced.append((int(row.last_round),
                               self._path(client, self._last[client])))
      self._last[client] = row.last_round

  def snapshot(self) -> np.ndarray:
    os.sync()  # what it names must not be lost with the power
    return self._last

  def restore(self, saved: np.ndarray) -> None:
    """Goes back to what a checkpoint holds, and removes files of later rounds.
    """
    self._last = np.array(saved)
    self._replaced = []
    for path in self._folder.glob('*/*-*.msgpack'):
      client, round_ = map(int, path.stem.split('-'))
      if round_ > self._last[client]:
        path.unlink()
      elif round_ < self._last[client]:
        self._replaced.append((int(self._last[client]), path))

  def keep_from(self, rounds: int) -> None:
    left = []
    for by, path in self._replaced:
      if by < rounds:
        path.unlink(missing_ok=True)
      else:
        left.append((by, path))
    self._replaced = left
