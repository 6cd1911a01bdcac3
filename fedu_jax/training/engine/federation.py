"""A federation: where it starts, what of it is saved, and what its runner does.
"""

import abc
from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from fedu_jax.core.state import Array, Metrics, Online, ServerState


class Start(NamedTuple):
  """What a federation starts from, besides its recipe and its data."""
  online: Online  # the network that the server sends out first
  parts: list[np.ndarray]  # for each client, the rows of the data that it owns
  seed: int  # of the run's key


class Run(NamedTuple):
  """The whole state of a run: what a checkpoint holds."""
  server: ServerState
  clients: Any  # stacked [K, ...], or what a store saves in their place
  rng: Array  # the run's key


class Federation(abc.ABC):
  """Runs the rounds of one federation, or of several at the same round.

  `ClientsOnDevice` keeps all clients on the devices that train them, and can
  run several federations (an experiment's seeds) as one program.
  `ClientsStreamed` keeps clients in a store, and runs one federation. Both give
  the same bits.

  Attributes:
    done: how many rounds are done.
    compiled: the program of a round, or of a slice of its cohort; there after
      `compile`.
  """
  done: int
  compiled: jax.stages.Compiled

  @property
  @abc.abstractmethod
  def where(self) -> str:
    """The devices and hosts, in words for the console; '' if there is one."""

  @abc.abstractmethod
  def compile(self) -> None:
    """Compiles all programs that `advance` runs."""

  @abc.abstractmethod
  def advance(self) -> list[Metrics]:
    """Runs one round; returns the metrics of each federation, [M] each."""

  @abc.abstractmethod
  def state(self, i: int) -> Run:
    """Returns what a checkpoint of federation `i` holds.

    Raises:
      OSError: clients are kept on disk, and some could not be written.
    """

  @abc.abstractmethod
  def online(self, i: int) -> Online:
    """Returns the global network of federation `i`, on one device."""

  def files(self) -> Sequence[pathlib.Path]:
    """Returns the files that the newest `state` names and so needs."""
    return ()

  def keep_from(self, rounds: int) -> None:
    """Frees what only checkpoints of fewer than `rounds` rounds need."""
