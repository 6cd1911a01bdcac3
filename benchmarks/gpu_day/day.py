"""Runs the stages of a call, each within its time, and cuts what overruns.

This process only waits and writes records. What could hang or crash runs in
another one, which is ended when its time is over.
"""

import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from benchmarks.gpu_day import commands
from benchmarks.gpu_day import sizes as sizes_lib
from benchmarks.gpu_day.budget import Budget
from benchmarks.gpu_day.budget import Stage
from benchmarks.gpu_day.records import Records

ROOT = pathlib.Path(__file__).parents[2]


class Worker:
  """The process that measures, started when it is first needed."""

  def __init__(self, options: dict[str, Any], log: Any, env: dict[str, str]):
    """Keeps what it is started with.

    Args:
      options: the options of `worker.main`.
      log: the file of its output.
      env: its environment.
    """
    self._options, self._log, self._env = options, log, env
    self._process: Any = None

  def ask(self, stage: str, seconds: float) -> str:
    """Runs a stage; returns '' or what went wrong.

    Raises:
      TimeoutError: it was not done in time, and the process is ended.
    """
    process = self._process or self._start()
    try:
      process.stdin.write(json.dumps(
          {'stage': stage, 'seconds': seconds}) + '\n')
      process.stdin.flush()
    except OSError:
      self.close()
      return 'the process is gone'
    with selectors.DefaultSelector() as selector:
      selector.register(process.stdout, selectors.EVENT_READ)
      if not selector.select(seconds):
        self.close()
        raise TimeoutError
    answer = process.stdout.readline()
    if not answer:
      self.close()
      return f'the process ended with exit code {process.returncode}'
    return json.loads(answer)['wrong']

  def _start(self) -> Any:
    self._process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.gpu_day.worker',
         json.dumps(self._options)], cwd=ROOT, env=self._env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        text=True, process_group=0)
    return self._process

  def close(self) -> None:
    """Ends the process and what it has started."""
    if self._process:
      commands.end(self._process)
    self._process = None


class Day:
  """One call: its stages in order, until its time is over."""

  def __init__(self, records: Records, budget: Budget, worker: Worker,
               setting: commands.Setting):
    """Keeps what the stages share."""
    self.records, self.budget = records, budget
    self._worker, self._setting = worker, setting

  def measure(self, only: list[str]) -> None:
    """Runs the measurements that earlier calls did not end.

    Args:
      only: names of stages; empty for all.
    """
    for stage in sizes_lib.MEASUREMENTS:
      if self.records.done(stage.name) or only and stage.name not in only:
        continue
      seconds = self.budget.allowance(stage)
      if not seconds:
        self.records.of(stage.name).add(
            'skipped', left=round(self.budget.left(), 1), least=stage.least)
        continue
      if stage.fresh:
        self._worker.close()
      self._run(stage, seconds)
    self._worker.close()

  def train(self, only: list[str]) -> None:
    """Trains the paper's federation with the rest of the time, then a rival."""
    for stage in (sizes_lib.PAPER, sizes_lib.RIVAL):
      if self.records.done(stage.name) or only and stage.name not in only:
        continue
      if self.budget.left() < stage.least:
        self.records.of(stage.name).add(
            'skipped', left=round(self.budget.left(), 1), least=stage.least)
        continue
      self._run(stage, self.budget.left())

  def _run(self, stage: Stage, seconds: float) -> None:
    """Runs a stage, and records how it ended."""
    records = self.records.of(stage.name)
    records.add('begin', seconds=round(seconds, 1))
    print(f'{self.budget.spent():5.0f} s  {stage.name}: {stage.about}',
          flush=True)
    began = time.monotonic()
    try:
      if stage.name in commands.COMMANDS:
        self._worker.close()
        wrong = commands.COMMANDS[stage.name](self._setting, records, seconds)
      else:
        wrong = self._worker.ask(stage.name, seconds)
    except TimeoutError:
      records.add('cut', took=round(time.monotonic() - began, 1))
      return
    except Exception as error:  # a file that a command should have written
      wrong = f'{type(error).__name__}: {error}'
    if wrong:
      records.add('failed', why=wrong)
      print(f'         failed: {wrong}', flush=True)
    else:
      records.add('end', took=round(time.monotonic() - began, 1))


def stop_on_signal() -> None:
  """Turns SIGTERM into an exit, so that processes are ended and a report made.
  """
  def leave(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)
  signal.signal(signal.SIGTERM, leave)


def environment(work: pathlib.Path, site: pathlib.Path | None,
                rehearse: bool) -> dict[str, str]:
  """Returns the environment of all processes.

  Args:
    work: the folder of large files; compiled programs are kept in it.
    site: a folder of packages that come before the machine's own, if any.
    rehearse: whether the CPU is used.
  """
  paths = [str(site)] if site else []
  env = {**os.environ, 'PYTHONUNBUFFERED': '1', 'PYTHONPATH': os.pathsep.join(
      [*paths, *filter(None, [os.environ.get('PYTHONPATH', '')])]),
      'JAX_COMPILATION_CACHE_DIR': str(work / 'compiled')}
  return env | ({'JAX_PLATFORMS': 'cpu'} if rehearse else {})
