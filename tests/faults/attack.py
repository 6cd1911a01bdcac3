"""The interface of attacks: orders, outcomes, and deliberate faults."""

from collections.abc import Callable
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple, Protocol

ROOT = pathlib.Path(__file__).parents[2]


class Outcome(NamedTuple):
  """A row of the table."""
  tried: int
  lost: int  # attacks after which something was lost, wrong or unclear
  note: str = ''  # what was lost first, or what else is worth a word


class Order(NamedTuple):
  """The arguments of a module's `run`."""
  folder: pathlib.Path  # empty, its own
  short: bool  # the form for CI, of a minute or so; else the long one
  seed: int
  say: Callable[[str], None]  # for a line of progress
  rows: frozenset[str] = frozenset()  # the only ones to do; none: all

  def wants(self, row: str) -> bool:
    """Whether a row is to be run."""
    return not self.rows or row in self.rows


class Break(NamedTuple):
  """A deliberate fault in our code, which a row must notice."""
  file: str  # from the root of the checkout
  old: str  # occurs once
  new: str


def run_main(workdir: pathlib.Path, *flags: str,
             config: str = 'tests/helpers/tiny.py', timeout: float = 600,
             **environment: str) -> subprocess.CompletedProcess:
  """Runs the program once, to its end, in a process of its own."""
  return subprocess.run(
      [sys.executable, '-m', 'fedu_jax.main', f'--config={config}',
       f'--workdir={workdir}', *flags], cwd=ROOT, text=True, check=False,
      capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL,
      env={**os.environ, 'PYTHONPATH': str(ROOT), **environment})


class Done(Protocol):
  """The end of a process, such as `subprocess.CompletedProcess`."""
  @property
  def returncode(self) -> int: ...

  @property
  def stderr(self) -> str: ...


def refusal(done: Done, code: int = 2) -> str:
  """Returns what is wrong with a refusal (one line on stderr, and its code); ''
  if nothing.
  """
  lines = done.stderr.strip().splitlines()
  if done.returncode != code:
    return f'exit code {done.returncode}: {done.stderr[-300:]}'
  if len(lines) != 1 or not lines[0].startswith('error: '):
    return f'{len(lines)} lines on stderr: {done.stderr[-300:]}'
  return ''
