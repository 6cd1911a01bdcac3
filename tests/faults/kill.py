"""Ends runs by signals at random moments, and checks their ends.

FAULTS_KILLS in the environment sets the number of kills, in place of 110 or 3.
"""

import os
import pathlib
import random
import shutil
import signal
import time
from typing import Any

import numpy as np

from tests.faults import attack
from tests.faults import ends
from tests.faults import forks

_KILLED, _ASKED, _TWICE = (
    'SIGKILL at random moments', 'SIGTERM and SIGINT', 'a second signal')
BROKEN = {
    _KILLED: attack.Break(
        'fedu_jax/runtime/metrics_log.py', 'if last < row[\'round\'] <= done:',
        'if last < row[\'round\']:'),
    _ASKED: attack.Break(
        'fedu_jax/training/round_loop.py', '    if not due:\n',
        '    if False:\n'),
    _TWICE: attack.Break(
        'fedu_jax/runtime/signals.py', 'again, _name = bool(_name),',
        'again, _name = False,')}

_ROUNDS, _FEWER = 12, 4
_COHORT = ('--config.cohort=2', '--config.participation.dropout=0.3')
# Stores of clients, and ways to draw them. One variant is scored too, and the
# last one resumes from the end of a run of half the rounds.
VARIANTS: dict[str, tuple[str, ...]] = {
    'disk': ('--config.store=disk', *_COHORT),
    'device': (),
    'host': ('--config.store=host', *_COHORT),
    'cohort': _COHORT,
    'scored': ('--config.data.source=digits', '--config.data.max_examples=400',
               f'--config.rounds={_FEWER}'),
    'extended': ('--extend',)}
# What a kill waits for; then it may wait a little more.
_AIMS = 'any', 'folder', 'line', 'line', 'save', 'save', 'clients', 'end'


def flags_of(folder: pathlib.Path, variant: str) -> list[str]:
  """Returns the flags of a run; its data is in the folder, made if absent."""
  data = folder / 'data.npz'
  if not data.exists():
    draw = np.random.RandomState(0)
    np.savez(data, train_labels=np.arange(400) % 10, train_images=draw.randint(
        0, 256, (400, 8, 8)).astype(np.uint8))
  return [f'--config.data.source=npz:{data}', '--config.data.max_examples=0',
          f'--config.rounds={_ROUNDS}', '--config.checkpoint.every=4',
          *VARIANTS[variant]]


def begin(server: forks.Forks, folder: pathlib.Path, variant: str,
          workdir: pathlib.Path) -> None:
  """Writes what the variant resumes from, if anything, into a run's folder."""
  if variant != 'extended':
    return
  shorter = folder / 'shorter'
  if not shorter.exists():
    started = server.start_run(shorter, *flags_of(folder, 'device'),
                               f'--config.rounds={_ROUNDS // 2}')
    assert started.wait() == 0, started.err()
  shutil.copytree(shorter, workdir)


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Runs all rows."""
  with forks.of_runs() as server:
    wholes: dict[str, Any] = {}

    def whole(variant):
      if variant not in wholes:
        folder = order.folder / f'whole-{variant}'
        begin(server, order.folder, variant, folder)
        started = server.start_run(folder, *flags_of(order.folder, variant))
        code = started.wait()
        assert code == 0, started.err()
        wholes[variant] = ends.of(folder)
      return wholes[variant]
    return {row: act(order, server, whole) for row, act in (
        (_KILLED, _killed), (_ASKED, _asked), (_TWICE, _twice))
        if order.wants(row)}


def _killed(order, server, whole) -> attack.Outcome:
  """Kills often enough; the run of each chain of kills is then completed."""
  draw = random.Random(order.seed)
  wanted = int(os.environ.get('FAULTS_KILLS', 3 if order.short else 110))
  tried = lost = chain = 0
  note = ''
  by_aim: dict[str, int] = {}
  while tried < wanted:
    variant = list(VARIANTS)[chain % len(VARIANTS)]
    workdir = order.folder / f'killed-{chain}'
    flags = flags_of(order.folder, variant)
    expected = whole(variant)
    begin(server, order.folder, variant, workdir)
    kills = 0
    while kills < min(8, wanted - tried):
      started = server.start_run(workdir, *flags)
      # Of few, one that leaves rows behind that no checkpoint has.
      aim = 'next save' if order.short and not kills else draw.choice(_AIMS)
      _await(started, workdir, variant, aim, draw)
      if not started.send(signal.SIGKILL):
        break
      if started.wait() != -signal.SIGKILL:
        break
      kills += 1
      by_aim[aim] = by_aim.get(aim, 0) + 1
    last = server.start_run(workdir, *flags)
    wrong = f'exit code {last.poll()}: {last.err()}' if last.wait() else (
        ends.difference(ends.of(workdir), expected))
    tried, lost, chain = tried + kills, lost + bool(wrong), chain + 1
    note = note or (wrong and f'{variant}: {wrong}')
    order.say(f'{tried} kills, {variant}: {wrong or "the same end"}')
  return attack.Outcome(tried, lost, note or ', '.join(
      f'{count} at {aim}' for aim, count in sorted(by_aim.items())))


def _await(started, workdir, variant, aim, draw) -> None:
  """Returns at a random moment of a kind, or when the process has ended."""
  metrics = workdir / 'metrics.jsonl'

  def lines():
    return metrics.read_bytes().count(b'\n') if metrics.exists() else 0
  rounds = _FEWER if variant == 'scored' else _ROUNDS
  more = lines() + (draw.randint(1, 3) if aim == 'line' else 1)
  saving = lambda: any((workdir / 'checkpoints').glob('*.part'))
  there = {
      'any': lambda: True, 'folder': workdir.exists,
      'line': lambda: lines() >= min(more, rounds),
      'next line': lambda: lines() >= min(more, rounds),
      'save': saving, 'next save': saving,
      'clients': lambda: any((workdir / 'clients').glob('*/*.part')),
      'end': lambda: lines() >= rounds}[aim]
  until = time.time() + 60
  while not there() and started.poll() is None and time.time() < until:
    time.sleep(0.001)
  if aim.startswith('next'):
    return
  if aim in ('any', 'folder', 'end'):
    time.sleep(draw.uniform(0, 4 if aim == 'any' else 1))
  else:
    time.sleep(draw.choice([0, draw.uniform(0, 0.05)]))


def _asked(order, server, whole) -> attack.Outcome:
  """Sends one signal: a line, a code, and a saved round must follow."""
  tried = lost = 0
  note = ''
  moments = ['next line'] if order.short else [
      'folder', 'next line', 'line', 'line', 'end'] * 3
  for i, moment in enumerate(moments):
    number = (signal.SIGTERM, signal.SIGINT)[i % 2]
    variant = 'disk' if order.short else list(VARIANTS)[i % len(VARIANTS)]
    workdir = order.folder / f'asked-{i}'
    flags = flags_of(order.folder, variant)
    expected = whole(variant)
    begin(server, order.folder, variant, workdir)
    started = server.start_run(workdir, *flags)
    _await(started, workdir, variant, moment, random.Random(i))
    if not started.send(number):
      continue
    tried += 1
    code, err = started.wait(), started.err()
    wrong = ''
    if code == 0 and moment == 'end':  # all was done, and nothing to be said
      wrong = err or ends.difference(ends.of(workdir), expected)
    elif code != 5 or err.count('\n') != 1 or number.name not in err:
      wrong = f'{moment}: exit code {code}: {err[-300:]}'
    elif 'after round' in err and ends.saved(workdir) != ends.lines(workdir):
      wrong = f'{moment}: round {ends.lines(workdir)} was not saved'
    elif moment == 'next line' and 'after round' not in err:
      wrong = f'{moment}: {err}'
    last = server.start_run(workdir, *flags)
    if last.wait():
      wrong = wrong or last.err()
    wrong = wrong or ends.difference(ends.of(workdir), expected)
    lost += bool(wrong)
    note = note or wrong
    order.say(f'{number.name}, {moment}, {variant}: {wrong or "good"}')
  return attack.Outcome(tried, lost, note)


def _twice(order, server, _) -> attack.Outcome:
  """Sends two signals in a long round: the first waits, the second ends it."""
  tried = lost = 0
  note = ''
  for i in range(1 if order.short else 4):
    workdir = order.folder / f'twice-{i}'
    started = server.start_run(
        workdir, *flags_of(order.folder, 'device'), '--config.rounds=2',
        '--config.local_epochs=10000', '--config.batch_size=4')
    while 'compiled' not in started.out() and started.poll() is None:
      time.sleep(0.01)
    time.sleep(0.5)
    started.send(signal.SIGTERM)
    time.sleep(0.5)
    began = time.time()
    tried += 1
    try:
      if not started.send(signal.SIGINT):
        raise TimeoutError(f'it ended before: {started.err()}')
      code = started.wait(20)
      wrong = '' if code == 5 and started.err().count('\n') == 1 else (
          f'exit code {code}: {started.err()[-300:]}')
    except TimeoutError as error:
      wrong = f'it did not leave: {error}'
    lost += bool(wrong)
    note = note or wrong or f'left after {time.time() - began:.2f} s'
  return attack.Outcome(tried, lost, note)
