"""SIGTERM and SIGINT: what is in hand is finished and saved, then it ends.

Signals are heard in a thread, as the main one may be deep in a compilation.
Nothing is lost by ending anywhere else: what a run leaves is whole at any time.
"""

import atexit
from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import sys
import threading

from fedu_jax.runtime.errors import Interrupted

_SIGNALS = signal.SIGTERM, signal.SIGINT
_GO_ON = 'started again in the same way, it goes on from what was saved'

_lock = threading.Lock()  # of the two that follow
_name = ''  # of the signal that has come
_held_back = False


def _leave(code: int, line: str) -> None:
  with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
    if sys.stdout.isatty():  # where a progress bar may have hidden the cursor
      os.write(1, b'\x1b[?25h\n')
  with contextlib.suppress(OSError):
    os.write(2, f'error: {line}\n'.encode())
  os._exit(code)


_leaves: Callable[[int, str], object] = _leave


def listen() -> None:
  """Begins to hear signals; for a program's main function alone.

  The first ends the program at once, but for a block that holds it back; a
  second ends it anyway.
  """
  heard, wake = os.pipe()
  os.set_blocking(wake, False)
  signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
  for number in _SIGNALS:
    signal.signal(number, lambda *_: None)  # or there is nothing to wake for
  threading.Thread(target=_listen, args=(heard,), daemon=True).start()
  atexit.register(_end)


def _end() -> None:
  """Ignores signals while Python ends: all is done, and its code is known.

  Python would give those that are not ignored back to the system, which ends a
  process by them without a word.
  """
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)


def leave_by(leaves: Callable[[int, str], object] | None) -> None:
  """Sets how the program leaves at once, which others may have to be told.

  Args:
    leaves: given the exit code and the last line; None, as by itself.
  """
  global _leaves
  _leaves = leaves or _leave


def asked() -> bool:
  """Whether a signal has come that is being held back."""
  return bool(_name)


def interrupted(where: str) -> Interrupted:
  """What to raise when it was asked for, and `where` is saved."""
  by = f'by {_name}' if _name else 'with another process'
  return Interrupted(f'interrupted {by} {where}: {_GO_ON}')


@contextlib.contextmanager
def held_back() -> Iterator[None]:
  """Lets the first signal wait, for the block to ask after it when it may."""
  global _held_back
  with _lock:
    _held_back = True
  try:
    yield
  finally:
    with _lock:
      _held_back = False
  if _name:  # it came when the block had asked for the last time
    _leaves(Interrupted.code, f'interrupted by {_name}: {_GO_ON}')


def _listen(heard: int) -> None:
  global _name
  while True:
    number = os.read(heard, 1)[0]
    if number not in _SIGNALS:
      continue
    with _lock:
      again, _name = bool(_name), signal.Signals(number).name
      if _held_back and not again:
        continue
    if again:
      _leave(Interrupted.code, f'interrupted again by {_name}, and left at '
             f'once: {_GO_ON}')
    # Not here, where a second one could not be heard.
    threading.Thread(target=_leaves, daemon=True, args=(
        Interrupted.code, f'interrupted by {_name}: {_GO_ON}')).start()
