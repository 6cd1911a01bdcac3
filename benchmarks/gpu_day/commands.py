"""Stages that start commands of this project, and read what they write."""

from collections.abc import Callable, Sequence
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

from benchmarks.gpu_day import sizes as sizes_lib
from benchmarks.gpu_day.records import Record
from benchmarks.gpu_day.records import Records

_GRACE = 25.0  # seconds for a run to end its round and to save it
# Seconds of the paper's run, before a stage has measured a round.
_ROUND, _COMPILE = 15.0, 60.0
_START_AND_SCORES = 60.0
_FEWEST = 4  # rounds that are worth a run
_PART = 0.6  # of a call that the schedule is planned for


class Setting(NamedTuple):
  """What all commands share.

  Attributes:
    root: the folder of this project.
    out: the folder of results.
    work: the folder of large files.
    sizes: the sizes of all stages.
    env: the environment of commands.
    log: the file of their output.
    seconds: the limit of a whole call.
  """
  root: pathlib.Path
  out: pathlib.Path
  work: pathlib.Path
  sizes: sizes_lib.Sizes
  env: dict[str, str]
  log: Any
  seconds: float

  def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    """Starts a module of this project with arguments."""
    return subprocess.Popen(
        [sys.executable, '-m', *arguments], cwd=self.root,
        env=self.env | env, stdin=subprocess.DEVNULL, stdout=self.log,
        stderr=self.log, process_group=0)


def flags(fields: dict[str, Any]) -> list[str]:
  """Returns the flags of fedu_jax.main that set these fields."""
  return [f'--config.{name}={value}' for name, value in fields.items()]


def end(process: subprocess.Popen[Any]) -> None:
  """Ends a process, and all that it has started, at once."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def wait(processes: Sequence[subprocess.Popen[Any]], seconds: float,
         grace: float = 0.0) -> bool:
  """Waits for processes; asks them to stop, then ends them, if time is over.

  Args:
    processes: the processes.
    seconds: the time for all of them.
    grace: the last part of it, which begins with SIGTERM.

  Returns:
    Whether all ended by themselves.
  """
  until = time.monotonic() + seconds
  asked = False
  try:
    while any(p.poll() is None for p in processes):
      left = until - time.monotonic()
      if left < grace and not asked:
        asked = True
        for process in processes:
          process.terminate()
      if left < 0:
        return False
      time.sleep(0.1)
    return not asked
  finally:
    for process in processes:
      end(process)


def same(setting: Setting, records: Records, seconds: float) -> str:
  """Runs equal runs, each with a compilation of its own, and compares them."""
  took = 0.0
  for name, fields in _pairs().items():
    if records.row('same', name):
      continue
    if seconds < 1.2 * took:  # as long as the last pair
      raise TimeoutError
    began, found = time.monotonic(), []
    folders = [setting.work / 'same' / f'{name}-{i}-{os.getpid()}'
               for i in range(2)]
    runs = [setting.start(
        'fedu_jax.main', '--config=configs/cifar10.py', f'--workdir={folder}',
        *flags({'data.source': f'npz:{setting.work / "cifar10.npz"}'}
               | setting.sizes.same | fields),
        JAX_COMPILATION_CACHE_DIR=str(folder) + '-compiled',
        XLA_PYTHON_CLIENT_PREALLOCATE='false') for folder in folders]
    if not wait(runs, seconds):
      raise TimeoutError
    if any(run.returncode for run in runs):
      return f'exit codes {[run.returncode for run in runs]}: see the log'
    digest = setting.start('benchmarks.gpu_day.digest', *map(str, folders),
                           JAX_PLATFORMS='cpu')
    took = time.monotonic() - began
    if not wait([digest], max(seconds - took, 1)):
      raise TimeoutError
    if digest.returncode:
      return 'no digests: see the log'
    for folder in folders:
      found.append(json.loads((folder / 'digest.json').read_text()))
    records.add('row', name=name, seconds=took, digests=found, rates=[
        _progress(folder)['rows'][-1]['images_per_second']
        for folder in folders], **{
        f'{part}_equal': found[0][part] == found[1][part]
        for part in found[0]})
    seconds -= time.monotonic() - began
  return ''


def _pairs() -> dict[str, dict[str, Any]]:
  """Returns the fields of each pair of equal runs."""
  return {'default': {}, 'deterministic': {'deterministic': True}}


def paper(setting: Setting, records: Records, seconds: float) -> str:
  """Trains the paper's FedU, or goes on with it."""
  return _train(setting, records, seconds, {})


def rival(setting: Setting, records: Records, seconds: float) -> str:
  """Trains FedBYOL with the rounds of the paper's run, if they fit."""
  rounds = records.row('paper', 'schedule').get('rounds', 0)
  if not records.done('paper'):
    return "the paper's run has not ended"
  if rounds > rounds_that_fit(records, seconds):
    return f'{rounds} rounds do not fit {seconds:.0f} s'
  return _train(setting, records, seconds, {'rule.name': 'global_predictor'})


COMMANDS: dict[str, Callable[[Setting, Records, float], str]] = {
    'same': same, 'paper': paper, 'rival': rival}


def rounds_that_fit(records: Records, seconds: float, *,
                    compiled: bool = False) -> int:
  """Returns how many of the paper's 100 rounds fit, with start and scores.

  Args:
    records: the records, which may know how long a round takes.
    seconds: the time for all.
    compiled: whether their program is in the cache.
  """
  found = records.row('memory', 'round')
  each = found.get('round_seconds', _ROUND)
  other = _START_AND_SCORES + (
      0 if compiled else found.get('compile_seconds', _COMPILE))
  return max(0, min(100, int((seconds - other) / each)))


def planned_rounds(setting_seconds: float, records: Records) -> int:
  """Returns the rounds that the larger part of a call has time for.

  The schedule is a constant of a round's program, so it is chosen before the
  program is first compiled.
  """
  return max(_FEWEST, rounds_that_fit(records, _PART * setting_seconds))


def rounds_to_run(records: Records, seconds: float,
                  call_seconds: float) -> int:
  """Returns the rounds of a new run.

  A program that is compiled already is kept if its schedule fits well.

  Args:
    records: the records.
    seconds: the time that is left.
    call_seconds: the limit of a whole call.
  """
  planned = records.row('memory', 'foreseen').get(
      'rounds') or planned_rounds(call_seconds, records)
  anew = rounds_that_fit(records, seconds)
  if anew < _FEWEST:  # too late in this call: the next one goes on with it
    return planned
  kept = planned <= rounds_that_fit(records, seconds, compiled=True)
  return planned if kept and anew <= 1.25 * planned else anew


def _train(setting: Setting, records: Records, seconds: float,
           fields: dict[str, Any]) -> str:
  """Starts or resumes a run, and records how far it came."""
  name = records.stage
  folder = setting.work / name
  begun = (folder / 'config.json').exists()
  if name == 'rival':
    rounds = records.row('paper', 'schedule')['rounds']
  elif begun:
    rounds = json.loads((folder / 'config.json').read_text())['rounds']
  else:
    rounds = min(setting.sizes.rounds,
                 rounds_to_run(records, seconds, setting.seconds))
  records.add('row', name='schedule', rounds=rounds, resumed=begun)
  run = setting.start(
      'fedu_jax.main', '--config=configs/cifar10.py', f'--workdir={folder}',
      *flags({'data.source': f'npz:{setting.work / "cifar10.npz"}',
              'rounds': rounds} | setting.sizes.paper | fields))
  ended = wait([run], seconds, grace=min(_GRACE, seconds / 4))
  records.add('row', name='run', **_progress(folder))
  if not ended:
    raise TimeoutError
  return f'exit code {run.returncode}: see the log' if run.returncode else ''


def _progress(folder: pathlib.Path) -> Record:
  """Reads how far a run came, and its scores if it has ended."""
  rows = []
  with contextlib.suppress(OSError):
    for line in (folder / 'metrics.jsonl').read_text().splitlines():
      with contextlib.suppress(ValueError):
        rows.append(json.loads(line))
  found: Record = {'rounds_done': len(rows), 'rows': [
      {name: value for name, value in row.items() if name != 'clients'}
      for row in rows]}
  with contextlib.suppress(OSError, ValueError):
    summary = json.loads((folder / 'summary.json').read_text())
    found |= {key: summary.get(key) for key in (
        'scores', 'wall_seconds', 'compile_seconds', 'device', 'rounds')}
    found['speed'] = {key: value for key, value in summary.items()
                      if isinstance(value, float)}
    found['local_epochs'] = summary['config']['local_epochs']
  return found
