"""Heartbeats between hosts, and a clear end if a host is lost.

JAX aborts a process with a stack trace when the coordinator or another process
is gone. Therefore hosts watch each other here, and an abort is caught.
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
_ending = threading.Lock()  # taken once, by who prints the last line


def end(code: int, line: str, stderr: int = 2) -> NoReturn:
  """Exits from any thread, after one line on stderr."""
  _say(line, stderr)
  os._exit(code)


def _say(line: str, stderr: int = 2) -> None:
  """Prints the last line; threads that come later wait for the exit."""
  _ending.acquire()
  # The process must exit even if stdout and stderr have no reader.
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
  with contextlib.suppress(OSError):
    os.write(stderr, f'error: {line}\n'.encode())


class Watcher:
  """Sends heartbeats to the other hosts; exits when one of them is lost."""

  def __init__(self, me: int, count: int, timeout: float):
    """Waits until all hosts have come; `start` begins to watch them.

    Args:
      me: this host's number.
      count: the number of hosts.
      timeout: seconds without a heartbeat after which a host counts as lost.
    """
    self._me, self._count, self._timeout = me, count, timeout
    self._every = timeout / 20
    self._stopped = threading.Event()
    coordination_client().wait_at_barrier(
        'fedu_jax joined', int(1000 * timeout))
    self._heard = dict.fromkeys(set(range(count)) - {me}, time.monotonic())

  def start(self) -> None:
    """Starts the threads; from now on an abort exits with code LOST."""
    on_abort(lambda: end(LOST, f'{_coordinator_or_jax()}: {_AGAIN}'))
    for work in (self._tell, self._judge):
      threading.Thread(target=work, daemon=True).start()

  def stop(self) -> None:
    """Stops the threads, and no longer catches aborts."""
    self._stopped.set()
    on_abort(None)

  def leave(self, code: int, reason: str) -> NoReturn:
    """Exits, and tells the other hosts why, so that they exit too."""
    with contextlib.suppress(Exception):  # the coordinator may be gone
      coordination_client().key_value_set(
          f'fedu_jax/ended/{self._me}', f'{code} {reason}')
    self._end(code, reason)

  def wait_for_all(self) -> None:
    """Returns when every other host has sent a heartbeat after the call.

    If a host is lost, this process exits instead.
    """
    # Twice, because the first may have been sent just before the host died.
    for _ in range(2):
      now = time.monotonic()
      while min(self._heard.values(), default=now + 1) <= now:
        time.sleep(self._every / 4)

  def _tell(self) -> None:
    """Sends heartbeats, and reads those of the other hosts."""
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
      except Exception:  # no heartbeat arrives then, and `_judge` decides
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
    """Exits because another host has ended."""
    if int(code) == BadInput.code:
      self._end(BadInput.code, f'process {host}: {reason}')
    self._end(LOST, f'process {host} ended ({reason[:200]}): {_AGAIN}')

  def _judge(self) -> None:
    """Exits when another host has sent no heartbeat for the timeout."""
    while not self._stopped.wait(self._every):
      late = time.monotonic() - self._timeout
      lost = [i for i, heard in self._heard.items() if heard < late]
      if lost and not self._stopped.is_set():
        # Without the coordinator, no heartbeat arrives from any host.
        names = ('0, which coordinates,' if 0 in lost
                 else ', '.join(map(str, lost)))
        self._end(LOST, f'process {names} was not heard of for '
                  f'{self._timeout:g} s and is taken for lost: {_AGAIN}', lost)

  def _end(self, code: int, line: str, lost: Sequence[int] = ()) -> NoReturn:
    """Exits after a short wait for other hosts that are about to exit.

    The coordinator exits last: JAX aborts the others when it is gone.
    """
    _say(line)
    there = [i for i in range(self._count) if i not in lost]

    def meet():
      with contextlib.suppress(Exception):  # some hosts may never come
        coordination_client().wait_at_barrier(
            'fedu_jax leaves', int(3000 * self._every), process_ids=there)
        if not self._me:
          time.sleep(self._every)
    if 0 in there:  # a lost coordinator would never answer
      meeting = threading.Thread(target=meet, daemon=True)
      meeting.start()
      meeting.join(4 * self._every)
    os._exit(code)


@contextlib.contextmanager
def aborts_as(line: Callable[[str], str]) -> Iterator[None]:
  """Turns an abort within the context into one line, with BadInput's code.

  Args:
    line: makes the line from all that was written to stderr in the context.
      Without an abort, that text is written to stderr at the end.
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
  """Returns why JAX aborted, mostly because the coordinator is gone."""
  address = coordinator_address()
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host.strip('[]'), int(port)), 1).close()
  except (OSError, ValueError):
    return 'process 0, which coordinates, is lost'
  return 'JAX ended this process, for the reason that it gives above'
