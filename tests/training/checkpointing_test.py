"""Saving a round: failures that are reported, and states that are refused."""

import errno
import types
from typing import NamedTuple

import numpy as np
import pytest

from fedu_jax.runtime.errors import Diverged
from fedu_jax.training import checkpointing
from fedu_jax.training.engine import federation


class Server(NamedTuple):
  """The part of a server that is looked at."""
  weight: np.floating
  round: np.integer


class Rounds(federation.Federation):
  """A federation after three rounds in which nothing was computed."""
  done, where, compiled = 3, '', None
  kept = None

  def __init__(self, weight=1.0):
    self.weight = np.float32(weight)

  def compile(self):
    pass

  def advance(self):
    return []

  def state(self, i):
    return federation.Run(Server(self.weight, np.int32(self.done)), (), ())

  def online(self, i):
    return i

  def keep_from(self, rounds):
    self.kept = rounds


def checkpoints(newest, error=None):
  """Makes the checkpoints of a folder, the newest of such a round."""
  saved = []

  def save(*what):
    if error:
      raise error
    saved.append(what)
  return types.SimpleNamespace(latest=lambda: newest, oldest=lambda: newest,
                               save=save, saved=saved)


@pytest.mark.parametrize('newest, remains', [
    (None, 'there is none yet'), (2, 'that of round 2 stays')])
def test_a_failure_says_what_failed_why_and_what_there_is(newest, remains):
  error = OSError(errno.ENOSPC, 'No space left on device')
  rounds = Rounds()
  failure = checkpointing.save(rounds, 0, checkpoints(newest, error),
                               lambda: None)
  assert str(failure) == ('checkpoint of round 3 could not be saved (No space '
                          f'left on device): {remains}')
  assert failure.advice == 'make room'
  assert rounds.kept is None  # what older checkpoints need stays


def test_rows_are_on_disk_before_the_checkpoint():
  """If rows cannot be written, no later checkpoint is saved."""
  own = checkpoints(2)

  def settle():
    raise OSError(errno.EIO, 'Input/output error')
  failure = checkpointing.save(Rounds(), 0, own, settle)
  assert failure.advice == 'check the disk' and not own.saved
  rounds = Rounds()
  assert checkpointing.save(rounds, 0, own, lambda: None) is None
  assert len(own.saved) == 1 and rounds.kept == 2


def test_a_server_that_is_not_finite_is_not_saved():
  own = checkpoints(2)
  with pytest.raises(Diverged, match='after round 3 .* is of round 2;'):
    checkpointing.save(Rounds(np.nan), 0, own, lambda: None)
  assert not own.saved
