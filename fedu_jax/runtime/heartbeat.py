"""Hosts that watch each other, and how one ends that another left behind.

JAX ends a process whose coordinator or peers are gone by an abort with a stack
trace. So hosts are watched here, and an abort is caught.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from typing import NoReturn

from fedu_jax.runtime.errors import BadInput, LOST
from fedu_jax.runtime.private_apis import coordination_client
from fedu_jax.runtime.private_apis import coordinator_address
from fedu_jax.runtime.private_apis import on_abort

_AGAIN = ('start all hosts again in the same workdir: the run goes on from its '
          'last checkpoint')
_ending = threading.Lock()  # taken once, by who says the last line


def end(code: int, line: str, stderr: int = 2) -> NoReturn:
  """Ends this process from any thread, after one line on stderr."""
  _say(line, stderr)
  os._exit(code)


def _say(line: str, stderr: int = 2) -> None:
  """Says the last line; whoever comes later waits for the end."""
  _ending.acquire()
  # Nobody may be there to read it; the end must come all the same.
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
  with contextlib.suppress(OSError):
    os.write(stderr, f'error: {line}\n'.encode())


class Watcher:
  """Tells the other hosts that this one lives, and ends it when one is lost."""

  def __init__(self, me: int, count: int, timeout: float):
    """Meets the others; see `start`.

    Args:
      me: this host's number.
      count: of all hosts.
      timeout: seconds after which one that is not heard of is lost.
    """
    self._me, self._count, self._timeout = me, count, timeout
    self._every = timeout / 20
    self._stopped = threading.Event()
    coordination_client().wait_at_barrier(
        'fedu_jax joined', int(1000 * timeout))
    self._heard = dict.fromkeys(set(range(count)) - {me}, time.monotonic())

  def start(self) -> None:
    """Begins to tell and to watch, in threads; an abort has code LOST."""
    on_abort(lambda: end(LOST, f'{_coordinator_or_jax()}: {_AGAIN}'))
    for work in (self._tell, self._judge):
      threading.Thread(target=work, daemon=True).start()

  def stop(self) -> None:
    """Ends what `start` began."""
    self._stopped.set()
    on_abort(None)

  def leave(self, code: int, reason: str) -> NoReturn:
    """Ends this host, and tells the others why so that they end too."""
    with contextlib.suppress(Exception):  # nobody may be there to be told
      coordination_client().key_value_set(
          f'fedu_jax/ended/{self._me}', f'{code} {reason}')
    self._end(code, reason)

  def wait_for_all(self) -> None:
    """Returns when each other host has surely lived after now.

    If one is lost, this process ends instead.
    """
    # Once may be what it said just before it died.
    for _ in range(2):
      now = time.monotonic()
      while min(self._heard.values(), default=now + 1) <= now:
        time.sleep(self._every / 4)

  def _tell(self) -> None:
    """Says that this host lives, and hears of the others."""
    beats: dict[int, str] = {}
    number = 0
    while not self._stopped.wait(self._every):
      number += 1
      try:
        client = coordination_client()
        client.key_value_set(
            f'fedu_jax/lives/{self._me}', str(number), allow_overwrite=True)
        lives = client.key_value_dir_get('fedu_jax/lives/')
        ended = client.key_value_dir_get('fedu_jax/ended/')
      except Exception:  # whatever it is, nobody is heard: `_judge` decides
        continue
      for name, beat in lives:
        host = int(name.rsplit('/', 1)[-1])
        if host != self._me and beats.get(host) != beat:
          beats[host], self._heard[host] = beat, time.monotonic()
      for name, text in ended:
        host = int(name.rsplit('/', 1)[-1])
        if host != self._me and not self._stopped.is_set():
          self._follow(host, *text.split(' ', 1))

  def _follow(self, host: int, code: str, reason: str) -> NoReturn:
    """Ends as a host did that ended first."""
    if int(code) == BadInput.code:
      self._end(BadInput.code, f'process {host}: {reason}')
    self._end(LOST, f'process {host} ended ({reason[:200]}): {_AGAIN}')

  def _judge(self) -> None:
    """Ends this host when one of the others has long not been heard of."""
    while not self._stopped.wait(self._every):
      late = time.monotonic() - self._timeout
      lost = [i for i, heard in self._heard.items() if heard < late]
      if lost and not self._stopped.is_set():
        # Without the coordinator, nobody is heard.
        names = ('0, which coordinates,' if 0 in lost
                 else ', '.join(map(str, lost)))
        self._end(LOST, f'process {names} was not heard of for '
                  f'{self._timeout:g} s and is taken for lost: {_AGAIN}', lost)

  def _end(self, code: int, line: str, lost: Sequence[int] = ()) -> NoReturn:
    """Ends this process, but waits a moment for those about to end as well.

    The coordinator goes last: when it is gone, JAX aborts the others.
    """
    _say(line)
    there = [i for i in range(self._count) if i not in lost]

    def meet():
      with contextlib.suppress(Exception):  # some may never come
        coordination_client().wait_at_barrier(
            'fedu_jax leaves', int(3000 * self._every), process_ids=there)
        if not self._me:
          time.sleep(self._every)
    if 0 in there:  # asked in vain, a lost coordinator would keep us waiting
      meeting = threading.Thread(target=meet, daemon=True)
      meeting.start()
      meeting.join(4 * self._every)
    os._exit(code)


@contextlib.contextmanager
def aborts_as(line: Callable[[str], str]) -> Iterator[None]:
  """Makes an abort in the block one line on stderr, as of BadInput.

  Args:
    line: makes the line of all that was written to stderr in the block; if
      nothing aborts, that is written after it.
  """
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as said:
    def read():
      said.seek(0)
      return said.read()
    on_abort(lambda: end(BadInput.code, line(read().decode(errors='replace')),
                         stderr=stderr))
    os.dup2(said.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(stderr, 2)
      on_abort(None)
      os.write(2, read())
      os.close(stderr)


def _coordinator_or_jax() -> str:
  """Says why JAX aborts: mostly it is the coordinator that is gone."""
  address = coordinator_address()
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host.strip('[]'), int(port)), 1).close()
  except (OSError, ValueError):
    return 'process 0, which coordinates, is lost'
  return 'JAX ended this process, for the reason that it gives above'
