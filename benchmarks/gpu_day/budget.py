"""The time of one call: how long each stage may take, and which must wait."""

from collections.abc import Callable
import time
from typing import NamedTuple

USUAL = 390.0  # seconds of a call


class Stage(NamedTuple):
  """A part of the day, which is run to its end or cut.

  Attributes:
    name: its name in the records.
    least: seconds without which it is not begun.
    share: seconds after which it is cut; more in a call that is longer than
      the usual one.
    about: what it finds out, for people.
    fresh: whether it needs a process without the memory of earlier stages.
  """
  name: str
  least: float
  share: float
  about: str
  fresh: bool = False


class Budget:
  """Counts the seconds of one call against its limit."""

  def __init__(self, seconds: float, *, measuring: float = 1.0,
               clock: Callable[[], float] = time.monotonic):
    """Starts the clock.

    Args:
      seconds: the limit of the call.
      measuring: the share of the call after which no measurement runs, so that
        the paper's run gets the rest.
      clock: returns the seconds since some moment.
    """
    self.seconds, self._clock = seconds, clock
    self._measuring, self._began = measuring, clock()

  def spent(self) -> float:
    """Returns the seconds since the start."""
    return self._clock() - self._began

  def left(self) -> float:
    """Returns the seconds until the limit; 0 after it."""
    return max(0.0, self.seconds - self.spent())

  def allowance(self, stage: Stage) -> float:
    """Returns the seconds that a measurement may take; 0 if it must wait."""
    left = self._measuring * self.seconds - self.spent()
    longer = max(1.0, self.seconds / USUAL)
    return min(left, longer * stage.share) if left >= stage.least else 0.0
