"""Keeps the program loaded, and forks a process for each start of it.

A start is a process of its own that runs `fedu_jax.main` from its flags on; it
is spared only the seconds in which Python loads JAX.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from benchmarks.faults import attack


class Started:
  """One process of the program."""

  def __init__(self, nursery: 'Nursery', pid: int, said: pathlib.Path):
    self.pid, self._nursery, self._said = pid, nursery, said
    self._code: int | None = None

  def poll(self) -> int | None:
    """The exit code, negative for a signal; None while it runs."""
    if self._code is None:
      self._code = self._nursery.ask({'poll': self.pid})
    return self._code

  def wait(self, seconds: float = 600) -> int:
    """Waits for the end; a process that does not come to it is killed."""
    until = time.time() + seconds
    while self.poll() is None and time.time() < until:
      time.sleep(0.01)
    if self.poll() is None:
      self.send(signal.SIGKILL)
      raise TimeoutError(self.err())
    return self.poll() or 0

  def send(self, number: int) -> bool:
    """Sends a signal; whether it met a living process."""
    # Not reaped before we ask, so the number is still this process's.
    alive = self.poll() is None
    if alive:
      os.kill(self.pid, number)
    return alive

  def out(self) -> str:
    """What it has printed."""
    return self._text('.out')

  def err(self) -> str:
    """What it has printed on stderr."""
    return self._text('.err')

  def _text(self, suffix: str) -> str:
    path = self._said.with_suffix(suffix)
    return path.read_text() if path.exists() else ''


class Nursery:
  """Starts processes; a context manager, which ends those left."""

  def __init__(self, folder: pathlib.Path, **environment: str):
    self._folder, self._count = folder, 0
    self._started: list[Started] = []
    self._server = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.faults.starts'], cwd=attack.ROOT,
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(attack.ROOT),
             'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
             **environment})

  def __enter__(self) -> 'Nursery':
    return self

  def __exit__(self, *_) -> None:
    for started in self._started:
      started.send(signal.SIGKILL)
    self._server.communicate()

  def ask(self, request: dict) -> int | None:
    """What the server answers."""
    assert self._server.stdin and self._server.stdout
    self._server.stdin.write(json.dumps(request) + '\n')
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())

  def start(self, workdir: pathlib.Path, *flags: str,
            config: str = 'tests/tiny.py') -> Started:
    """Starts the program."""
    self._count += 1
    said = self._folder / f'said-{self._count}'
    pid = self.ask({'said': str(said), 'flags': [
        f'--config={config}', f'--workdir={workdir}', *flags]})
    assert pid
    self._started.append(Started(self, pid, said))
    return self._started[-1]


def _serve() -> None:
  """Answers requests; returns in a process that shall be a start."""
  for line in sys.stdin:
    request = json.loads(line)
    answer: int | None = None
    if 'poll' in request:
      pid, status = os.waitpid(request['poll'], os.WNOHANG)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
      answer = os.fork()
      if not answer:
        for number, name in ((0, os.devnull), (1, request['said'] + '.out'),
                             (2, request['said'] + '.err')):
          file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
          os.dup2(file, number)
          os.close(file)
        # Where ml_collections looks for what is overridden in a config.
        sys.argv[1:] = request['flags']
        return
    print(json.dumps(answer), flush=True)
  sys.exit(0)


if __name__ == '__main__':
  import warnings

  from absl import app

  from fedu_jax import main

  warnings.filterwarnings('ignore', message='.*fork', category=RuntimeWarning)
  warnings.filterwarnings('ignore', message='.*fork',
                          category=DeprecationWarning)
  _serve()
  app.run(main.main, flags_parser=main._parse)
