"""SIGTERM and SIGINT: finish the current work, save it, and exit.

A thread receives signals, because the main thread may be compiling. Outside of
`held_back` the program exits at once. No file is damaged by that, because files
are always written as a whole.
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

_lock = threading.Lock()  # for the next two variables
_name = ''  # the name of the signal that has come
_held_back = False


def _leave(code: int, line: str) -> None:
  with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
    if sys.stdout.isatty():  # a progress bar may have hidden the cursor
      os.write(1, b'\x1b[?25h\n')
  with contextlib.suppress(OSError):
    os.write(2, f'error: {line}\n'.encode())
  os._exit(code)


_leaves: Callable[[int, str], object] = _leave


def listen() -> None:
  """Starts to receive signals; to be called in a program's main function.

  The first signal ends the program at once, except within `held_back`. A second
  signal always ends it at once.
  """
  heard, wake = os.pipe()
  os.set_blocking(wake, False)
  signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
  for number in _SIGNALS:
    signal.signal(number, lambda *_: None)  # without one, nothing is written
  threading.Thread(target=_listen, args=(heard,), daemon=True).start()
  atexit.register(_end)


def _end() -> None:
  """Ignores signals while Python exits; the exit code is already decided.

  Python resets other handlers to the system's default, and a signal would then
  end the process with another code.
  """
  for number in _SIGNALS:
    signal.signal(number, signal.SIG_IGN)


def leave_by(leaves: Callable[[int, str], object] | None) -> None:
  """Sets the function that ends the program at once.

  With several hosts it must also tell the others.

  Args:
    leaves: called with the exit code and the last line; None for the default.
  """
  global _leaves
  _leaves = leaves or _leave


def asked() -> bool:
  """Whether a signal has come and waits."""
  return bool(_name)


def interrupted(where: str) -> Interrupted:
  """Returns the error to raise after a signal, once the work is saved.

  Args:
    where: the place of the interruption, as a part of the message.
  """
  by = f'by {_name}' if _name else 'with another process'
  return Interrupted(f'interrupted {by} {where}: {_GO_ON}')


@contextlib.contextmanager
def held_back() -> Iterator[None]:
  """Makes the first signal wait; the context must check `asked`."""
  global _held_back
  with _lock:
    _held_back = True
  try:
    yield
  finally:
    with _lock:
      _held_back = False
  if _name:  # it came after the last check
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
    # In another thread, so that this one can receive a second signal.
    threading.Thread(target=_leaves, daemon=True, args=(
        Interrupted.code, f'interrupted by {_name}: {_GO_ON}')).start()
