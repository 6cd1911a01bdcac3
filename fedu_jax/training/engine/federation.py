"""The interface of a federation: its start, its state, and its rounds."""

import abc
from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from fedu_jax.core.state import Array, Metrics, Online, ServerState


class Start(NamedTuple):
  """The start of a federation, besides its recipe and its data."""
  online: Online  # the server's first network
  parts: list[np.ndarray]  # for each client, the rows of the data that it owns
  seed: int  # the seed of the run's key


class Run(NamedTuple):
  """The whole state of a run, as a checkpoint holds it."""
  server: ServerState
  clients: Any  # stacked [K, ...], or a store's snapshot
  rng: Array  # the run's key


class Federation(abc.ABC):
  """Runs the rounds of one federation, or of several in step.

  `ClientsOnDevice` keeps all clients on the devices, and can run several
  federations (the seeds of an experiment) as one program. `ClientsStreamed`
  keeps clients in a store, and runs one federation. Both give the same bits.

  Attributes:
    done: the number of completed rounds.
    compiled: the program of a round, or of a slice of its cohort; set by
      `compile`.
  """
  done: int
  compiled: jax.stages.Compiled

  @property
  @abc.abstractmethod
  def where(self) -> str:
    """The devices and hosts in words, for the console; '' for one device."""

  @abc.abstractmethod
  def compile(self) -> None:
    """Compiles all programs that `advance` runs."""

  @abc.abstractmethod
  def advance(self) -> list[Metrics]:
    """Runs one round; returns each federation's metrics, arrays [M, ...]."""

  @abc.abstractmethod
  def state(self, i: int) -> Run:
    """Returns the state of federation `i` for a checkpoint.

    Raises:
      OSError: clients are kept on disk, and some could not be written.
    """

  @abc.abstractmethod
  def online(self, i: int) -> Online:
    """Returns the server's network of federation `i`, on one device."""

  def files(self) -> Sequence[pathlib.Path]:
    """Returns the files that the newest `state` needs."""
    return ()

  def keep_from(self, rounds: int) -> None:
    """Removes files that only checkpoints of fewer rounds need."""
