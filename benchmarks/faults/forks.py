"""Many starts of a program at the price of one.

To import JAX takes seconds, and a wrong flag is refused in milliseconds. So one
process imports what the programs need, touches no device, and forks for each
start; the fork runs the module as `python -m` does.
"""

import contextlib
import gc
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any
import warnings

from benchmarks.faults import attack


class Forks(contextlib.AbstractContextManager):
  """Starts modules by forks of a process that has imported what they need."""

  def __init__(self, *preload: str, **environment: str):
    """Begins the process that forks.

    Args:
      *preload: modules to import once, none of which defines flags.
      **environment: of all starts, beside this process's.
    """
    self._folder = tempfile.TemporaryDirectory(prefix='forks-')
    self._server = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.faults.forks', *preload],
        cwd=attack.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, 'PYTHONPATH': str(attack.ROOT),
                        **environment})

  def __exit__(self, *_) -> None:
    assert self._server.stdin and self._server.stdout
    self._server.stdin.close()
    self._server.wait()
    self._server.stdout.close()
    self._folder.cleanup()

  def start(self, module: str, *argv: str,
            timeout: float = 60) -> subprocess.CompletedProcess:
    """Runs a module to its end, as `python -m <module> <argv>`.

    Args:
      module: its name.
      *argv: its arguments.
      timeout: seconds after which it is killed, and its code is -9.
    """
    assert self._server.stdin and self._server.stdout
    outputs = [pathlib.Path(self._folder.name, x) for x in ('out', 'err')]
    print(json.dumps([module, argv, timeout, list(map(str, outputs))]),
          file=self._server.stdin, flush=True)
    code = json.loads(self._server.stdout.readline())
    return subprocess.CompletedProcess(
        [module, *argv], code, *(x.read_text(errors='replace')
                                 for x in outputs))


def _serve(preload: list[str]) -> None:
  for name in preload:
    importlib.import_module(name)
  gc.freeze()  # a collection in a fork would copy all memory
  for line in sys.stdin:
    order = json.loads(line)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # no device is in use, so forks are fine
      child = os.fork()
    if not child:
      _run(*order)
    print(_wait(child, order[2]), flush=True)


def _run(module: str, argv: list[str], _: Any, outputs: list[str]) -> None:
  """The fork's part; does not return."""
  for stream, path in enumerate(outputs, 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.setsid()
  sys.argv = [module, *argv]
  code: Any = 0
  try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  except SystemExit as error:
    code = error.code
    if isinstance(code, str):
      print(code, file=sys.stderr)
      code = 1
  except BaseException:
    traceback.print_exc()
    code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code or 0)


def _wait(child: int, timeout: float) -> int:
  until = time.monotonic() + timeout
  while True:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
      return os.waitstatus_to_exitcode(status)
    if time.monotonic() > until:
      os.kill(child, signal.SIGKILL)
      until = float('inf')
    time.sleep(0.002)


if __name__ == '__main__':
  _serve(sys.argv[1:])
