"""Many starts of a program at the price of one.

Importing JAX takes seconds, and a wrong flag is refused in milliseconds. So one
process imports what the programs need, uses no device, and forks for each
start. The fork runs the module and ends as `python -m` does.
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
from typing import Any
import warnings

from tests.faults import attack


class Started:
  """One process of a program."""

  def __init__(self, forks: 'Forks', pid: int, said: pathlib.Path):
    self.pid, self._forks, self._said = pid, forks, said
    self._code: int | None = None

  def poll(self) -> int | None:
    """The exit code, negative for a signal; None while it runs."""
    if self._code is None:
      self._code = self._forks.ask({'poll': self.pid})
    return self._code

  def wait(self, seconds: float = 600) -> int:
    """Waits for the end; raises TimeoutError after it had to kill the process.
    """
    until = time.monotonic() + seconds
    while (code := self.poll()) is None:
      if time.monotonic() > until:
        self.send(signal.SIGKILL)
        raise TimeoutError(self.err())
      time.sleep(0.002)
    return code

  def send(self, number: int) -> bool:
    """Sends a signal; returns whether the process was running."""
    # Not reaped before we ask, so the number is still this process's.
    alive = self.poll() is None
    if alive:
      os.kill(self.pid, number)
    return alive

  def out(self) -> str:
    """Returns what it printed on stdout."""
    return self._text('.out')

  def err(self) -> str:
    """Returns what it printed on stderr."""
    return self._text('.err')

  def _text(self, suffix: str) -> str:
    path = self._said.with_suffix(suffix)
    return path.read_text(errors='replace') if path.exists() else ''


class Forks(contextlib.AbstractContextManager):
  """Starts modules as forks of a process that has imported their needs.

  At the end it kills those that are left.
  """

  def __init__(self, *preload: str, **environment: str):
    """Begins the process that forks.

    Args:
      *preload: modules to import once, none of which defines flags.
      **environment: of all starts, beside this process's.
    """
    self._folder = tempfile.TemporaryDirectory(prefix='forks-')
    self._started: list[Started] = []
    self._server = subprocess.Popen(
        [sys.executable, '-m', 'tests.faults.forks', *preload],
        cwd=attack.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, 'PYTHONPATH': str(attack.ROOT),
                        **environment})

  def __exit__(self, *_) -> None:
    for started in self._started:
      started.send(signal.SIGKILL)
    self._server.communicate()
    self._folder.cleanup()

  def ask(self, request: dict[str, Any]) -> int | None:
    """Returns the answer of the process that forks."""
    assert self._server.stdin and self._server.stdout
    print(json.dumps(request), file=self._server.stdin, flush=True)
    return json.loads(self._server.stdout.readline())

  def start(self, module: str, *argv: str) -> Started:
    """Starts a module, as `python -m <module> <argv>`."""
    said = pathlib.Path(self._folder.name, str(len(self._started)))
    pid = self.ask({'module': module, 'argv': argv, 'said': str(said)})
    assert pid
    self._started.append(Started(self, pid, said))
    return self._started[-1]

  def start_run(self, workdir: pathlib.Path, *flags: str,
                config: str = 'tests/helpers/tiny.py') -> Started:
    """Starts the program."""
    return self.start('fedu_jax.main', f'--config={config}',
                      f'--workdir={workdir}', *flags)

  def run(self, module: str, *argv: str) -> subprocess.CompletedProcess:
    """Runs a module to its end, a minute at most; its code is then -9."""
    started = self.start(module, *argv)
    try:
      code = started.wait(60)
    except TimeoutError:
      code = -signal.SIGKILL
    return subprocess.CompletedProcess(
        [module, *argv], code, started.out(), started.err())


def of_runs() -> Forks:
  """Starts runs and keeps all compiled programs, however fast they compile."""
  return Forks('fedu_jax.training.train', 'fedu_jax.runtime.cli',
               'ml_collections.config_flags', 'sklearn.datasets',
               JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0')


def _serve(preload: list[str]) -> str:
  """Answers requests; returns in a process that becomes a start."""
  for name in preload:
    importlib.import_module(name)
  gc.freeze()  # a collection in a fork would copy all memory
  for line in sys.stdin:
    request = json.loads(line)
    answer: int | None = None
    if 'poll' in request:
      pid, status = os.waitpid(request['poll'], os.WNOHANG)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no device is in use: forks are fine
        answer = os.fork()
      if not answer:
        return _become(**request)
    print(json.dumps(answer), flush=True)
  sys.exit(0)


def _become(module: str, argv: list[str], said: str) -> str:
  """Makes a fork look like a new process of a module; returns its name."""
  for number, name in ((0, os.devnull), (1, said + '.out'), (2, said + '.err')):
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, number)
    os.close(file)
  os.setsid()
  sys.argv = [module, *argv]
  return module


if __name__ == '__main__':
  runpy.run_module(_serve(sys.argv[1:]), run_name='__main__', alter_sys=True)
