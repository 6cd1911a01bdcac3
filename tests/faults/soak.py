"""Long runs: only files on disk may grow with the rounds.

One process runs 2,000 rounds of a tiny federation, for each store. After each
round it is measured: its memory, its open files, the number of compilations,
and the time.
"""

import ctypes
import gc
import os
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from fedu_jax.training import train
from tests.faults import attack
from tests.faults import tiny

# Bytes a round by which the memory may grow: a page, for what the allocator
# and the scheduler do by themselves. Few rounds show only what is coarser.
GROWTH, COARSE = 4096, 200_000
PACE = 1.5  # seconds a round of the last quarter over those of the first
_EVERY = 5  # rounds between two looks at the memory
STORES: dict[str, dict[str, Any]] = {
    'device': {'store': 'device'},
    'host': {'store': 'host', 'cohort': 3},
    'disk': {'store': 'disk', 'cohort': 3}}

_ADD = attack.Break(
    'fedu_jax/training/round_report.py', '    self._lines.add(row)\n', '')
_ROUND = 'metrics = federation.advance()\n'
BROKEN = {
    'memory': _ADD._replace(
        new='    self._lines.add(row)\n'
        "    self.all = [*getattr(self, 'all', ()), b'x' * 10**6 + b'y']\n"),
    'open files': _ADD._replace(
        new='    self._lines.add(row)\n'
        "    self.all = [*getattr(self, 'all', ()), open('/dev/null')]\n"),
    'compilations': attack.Break(
        'fedu_jax/training/round_loop.py', _ROUND,
        f'jax.jit(lambda: federation.done)(); {_ROUND}'),
    'seconds a round': attack.Break(
        'fedu_jax/training/round_loop.py', _ROUND,
        f'time.sleep(federation.done / 500); {_ROUND}'),
    'checkpoints kept': attack.Break(
        'fedu_jax/runtime/checkpoint.py', '[-self._keep:]', '[-99:]'),
}


class Look(NamedTuple):
  """The measures of a process after a round."""
  memory: int  # bytes, as of the last look at it
  files: int  # that are open
  compiled: int  # programs, since the process began
  seconds: float  # of a clock


class _Watch(Console):
  """A console that measures at each line of a round."""

  def __init__(self, quiet_file):
    super().__init__(file=quiet_file)
    self.looks: list[Look] = []
    self.compiled, self._memory = 0, 0

  def listen(self, event: str, duration_secs: float, **_) -> None:
    """Counts compilations."""
    del duration_secs
    self.compiled += event.endswith('backend_compile_duration')

  def print(self, *args, **choices) -> None:
    """Measures at a round's line; prints nothing."""
    if args and str(args[0]).startswith('round '):
      now = time.perf_counter()
      if len(self.looks) % _EVERY == 0:
        self._memory = _own_memory()
      self.looks.append(Look(self._memory, len(os.listdir('/proc/self/fd')),
                             self.compiled, now))


def _own_memory() -> int:
  """Bytes that this process has written and still has, swapped ones too.

  Freed memory is given back first. Otherwise the number would depend on the
  garbage collection and on compilations.
  """
  gc.collect()
  ctypes.CDLL(None).malloc_trim(0)
  with open('/proc/self/status', encoding='utf-8') as file:
    return sum(int(line.split()[1]) * 1024 for line in file
               if line.startswith(('RssAnon:', 'VmSwap:')))


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Runs all rows, for all stores."""
  # Seldom, since Orbax 0.12.8 by itself keeps 83 KiB of each save for good
  # (a loop of its own saves of 100 arrays), 8 of them in TensorStore's metrics.
  rounds, every = (60, 20) if order.short else (2000, 250)
  complaints: dict[str, list[str]] = {row: [] for row in BROKEN}
  notes: dict[str, list[str]] = {row: [] for row in BROKEN}
  for name, changes in STORES.items():
    found = _soak(order, name, changes, rounds, every)
    for row, (wrong, note) in found.items():
      order.say(f'{name}: {row}: {note}')
      notes[row].append(f'{name} {note}')
      if wrong:
        complaints[row].append(name)
  return {row: attack.Outcome(len(STORES), len(complaints[row]),
                              '; '.join(notes[row])) for row in BROKEN}


def _soak(order: attack.Order, name: str, changes: dict[str, Any], rounds: int,
          every: int) -> dict[str, tuple[bool, str]]:
  """Runs one store's rounds; returns for each row whether it is wrong, and a
  note.
  """
  config = tiny.get_config()
  config.update_from_flattened_dict({
      'rounds': rounds, 'checkpoint.every': every, 'checkpoint.keep': 2,
      **changes})
  folder = order.folder / name
  with open(os.devnull, 'w', encoding='utf-8') as nowhere:
    watch = _Watch(nowhere)
    jax.monitoring.register_event_duration_secs_listener(watch.listen)
    try:
      train.train(config, str(folder), console=watch)
    finally:
      jax.monitoring.unregister_event_duration_listener(watch.listen)
  looks = watch.looks
  assert len(looks) == rounds
  # By then the first checkpoint is saved.
  settled = looks[max(every + _EVERY, rounds // 5):]
  memory = [x.memory for x in settled]
  grown = float(np.polyfit(range(len(memory)), memory, 1)[0])
  compiled = looks[-1].compiled - looks[1].compiled
  files = settled[-1].files - settled[0].files
  quarter = len(settled) // 4
  # The median, so that a checkpoint or another process does not count.
  first, last = (np.median(np.diff([x.seconds for x in some])) for some in (
      settled[:quarter], settled[-quarter:]))
  kept = len(list((folder / 'checkpoints').glob('[0-9]*')))
  return {
      'memory': (grown > (COARSE if order.short else GROWTH),
                 f'{grown * 1000 / 2**20:+.1f} MiB in 1,000 rounds, at '
                 f'{looks[-1].memory / 2**20:.0f} MiB'),
      'open files': (bool(files), f'{files:+d} of {looks[-1].files}'),
      'compilations': (bool(compiled), f'{compiled} after round 2'),
      'seconds a round': (last > PACE * first, f'{last / first:.2f} times, at '
                          f'{last * 1e3:.1f} ms'),
      'checkpoints kept': (kept != 2, f'{kept} of {rounds // every}')}
