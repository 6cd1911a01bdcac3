"""Damages the files of runs, and takes away their disk."""

import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import time

from tests.faults import attack
from tests.faults import ends
from tests.faults import forks
from tests.faults import kill

_CHECKPOINT, _FEDERATION, _CLAIMS = (
    f'fedu_jax/{name}.py' for name in (
        'runtime/checkpoint', 'training/checkpointing',
        'training/workdir_lock'))
_LIMIT, _MOUNTED = 'a limit of file size', ('a full disk', 'a read-only disk')
_UNREAD = attack.Break(
    _CHECKPOINT, 'if durable_files.digest(folder / name) != wanted:',
    'if False:')
BROKEN = {
    'truncated files': _UNREAD,
    'flipped bits': _UNREAD,
    'missing files': _UNREAD,
    'a half-written checkpoint': attack.Break(
        _CHECKPOINT, 'manifest = json.loads(durable_files.unsealed(path))',
        'manifest = json.loads(\n'
        '          durable_files.unsealed(path)) if path.exists() else {\n'
        "          'files': {}, 'sealed': []}"),
    'client files': attack.Break(
        _CHECKPOINT, 'for name in sealed:', 'for name in ():'),
    'no sound checkpoint': attack.Break(
        _CHECKPOINT, '    if steps:\n', '    if False:\n'),
    'another config': attack.Break(
        _CLAIMS, 'folder, theirs, _own(config), extend',
        'folder, theirs, theirs, extend'),
    'an older version': attack.Break(
        'fedu_jax/training/config/checks.py',
        'in sorted(a.keys() | b.keys())', 'in sorted(a.keys() & b.keys())'),
    'two processes': attack.Break(_CLAIMS, '    if not free:\n',
                                  '    if False:\n'),
    _LIMIT: attack.Break(_CHECKPOINT, '    quiet_threads.hush()\n', ''),
    'a full disk': attack.Break(
        _FEDERATION, '  except OSError as error:\n',
        '  except MemoryError as error:\n'),
    'a read-only disk': attack.Break(
        'fedu_jax/runtime/errors.py', '  code = 4\n', '  code = 0\n')}


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Runs all rows."""
  found: dict[str, attack.Outcome] = {}
  with forks.of_runs() as server:
    left = order.folder / 'left'
    flags = kill.flags_of(order.folder, 'disk') + ['--config.checkpoint.keep=3']
    for row, act in _ATTACKS.items():
      if not order.wants(row):
        continue
      if not left.exists():
        first = server.start_run(left, *flags)
        assert first.wait() == 0, first.err()
        whole = ends.of(left)
      wrongs = []
      for i in range(1 if order.short or row in _ONCE else 8):
        folder = order.folder / row.replace(' ', '-') / str(i)
        shutil.copytree(left, folder)
        wrongs.append(act(server, folder, flags, whole,
                          random.Random(order.seed + i)))
        order.say(f'{row}: {wrongs[-1] or "good"}')
      found[row] = outcome(wrongs)
    if order.wants(_LIMIT):
      found[_LIMIT] = outcome([
          _limited(server, order.folder, i, stays) for i, stays in enumerate(
              (False,) if order.short else (False, True) * 4)])
  if rows := list(filter(order.wants, _MOUNTED)):
    found |= _mounted(order, rows)
  return found


def outcome(wrongs: list[str]) -> attack.Outcome:
  return attack.Outcome(len(wrongs), sum(map(bool, wrongs)),
                        next(filter(None, wrongs), ''))


# --- what lies there is damaged ----------------------------------------------


def steps_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the checkpoints, the newest first."""
  return sorted((x for x in (folder / 'checkpoints').iterdir()
                 if x.name.isdigit()), key=lambda x: -int(x.name))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(x for x in folder.rglob('*') if x.is_file())


def _goes_on(server, folder, flags, whole) -> str:
  """Starts again; returns what is wrong with the resumed run."""
  again = server.start_run(folder, *flags)
  if again.wait():
    return f'exit code {again.poll()}: {again.err()[-300:]}'
  said = [x for x in again.out().splitlines() if 'is damaged' in x]
  if len(said) != 1 or 'is done again' not in said[0]:
    return f'{len(said)} lines of {said} tell of it'
  return ends.difference(ends.of(folder), whole)


def _damaged(harm):
  def act(server, folder, flags, whole, draw):
    for step in steps_of(folder)[:draw.randint(1, 2)]:
      harm(draw.choice(_files(step)), draw)
    return _goes_on(server, folder, flags, whole)
  return act


def _truncate(path: pathlib.Path, draw: random.Random) -> None:
  os.truncate(path, draw.randrange(path.stat().st_size))


def _flip(path: pathlib.Path, draw: random.Random) -> None:
  data = bytearray(path.read_bytes())
  data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
  path.write_bytes(data)


def _remove(path: pathlib.Path, _: random.Random) -> None:
  path.unlink()


def _half_written(server, folder, flags, whole, draw) -> str:
  """Leaves files like a program that renames before it writes."""
  newest = steps_of(folder)[0]
  shutil.copytree(newest, newest.with_name('99.part'))
  found = [x for x in _files(newest) if x.name != 'manifest.json']
  (newest / 'manifest.json').unlink()
  for path in draw.sample(found, len(found) // 2):
    path.unlink()
  wrong = _goes_on(server, folder, flags, whole)
  return wrong or ('99.part is left' if newest.with_name('99.part').exists()
                   else '')


def _clients(server, folder, flags, whole, draw) -> str:
  """Damages one of the files that the newest checkpoint alone names."""
  steps = steps_of(folder)
  # Sealed, so there is more in the file than JSON.
  newest, before = (set(json.JSONDecoder().raw_decode(
      (x / 'manifest.json').read_text())[0]['sealed']) for x in steps[:2])
  path = folder / draw.choice(sorted(newest - before))
  draw.choice((_truncate, _flip, _remove))(path, draw)
  return _goes_on(server, folder, flags, whole)


def refused(server, folder, flags, *words: str) -> str:
  """Returns what is wrong with a refusal, which must change no file."""
  before = {x: x.read_bytes() for x in _files(folder)}
  again = server.start_run(folder, *flags)
  code, err = again.wait(), again.err()
  if code != 2 or err.count('\n') != 1 or not err.startswith('error: '):
    return f'exit code {code}: {err[-300:]}'
  if missing := [x for x in words if x not in err]:
    return f'{missing} not in: {err}'
  now = {x: x.read_bytes() for x in _files(folder)}
  changed = [x.name for x in before.keys() | now.keys()
             if before.get(x) != now.get(x) and x.name != '.lock']
  return f'{changed} changed' if changed else ''


def _none_sound(server, folder, flags, whole, draw) -> str:
  for step in steps_of(folder):
    draw.choice((_truncate, _flip, _remove))(draw.choice(_files(step)), draw)
  return refused(server, folder, flags, 'no checkpoint that is sound')


def _another(server, folder, flags, whole, draw) -> str:
  return refused(server, folder, [*flags, '--config.rule.threshold=0.5'],
                  'rule.threshold (0.4, not 0.5)')


def _older(server, folder, flags, whole, draw) -> str:
  """One field had another name, and one was not there yet."""
  path = folder / 'config.json'
  config = json.loads(path.read_text())
  config['rule.limit'] = config.pop('rule.threshold')
  del config['sampling.name']
  path.write_text(json.dumps(config))
  return refused(server, folder, flags, 'rule.limit (0.4, not',
                  'sampling.name (absent, not',
                  'rule.threshold (absent, not')


def _two(server, folder, flags, whole, draw) -> str:
  """Starts two at the same moment, in an empty place."""
  shutil.rmtree(folder)
  both = [server.start_run(folder, *flags) for _ in range(2)]
  codes = sorted(x.wait() for x in both)
  said = ''.join(x.err() for x in both)
  if codes != [0, 2] or said.count('\n') != 1 or str(folder) not in said or (
      'another process' not in said):
    return f'exit codes {codes}: {said[-300:]}'
  return ends.difference(ends.of(folder), whole)


_ATTACKS = {
    'truncated files': _damaged(_truncate), 'flipped bits': _damaged(_flip),
    'missing files': _damaged(_remove),
    'a half-written checkpoint': _half_written, 'client files': _clients,
    'no sound checkpoint': _none_sound, 'another config': _another,
    'an older version': _older, 'two processes': _two}
_ONCE = 'another config', 'an older version'


# --- the disk is taken away --------------------------------------------------


def _limited(server, folder, i: int, stays: bool) -> str:
  """From some round on, no file may be larger than a few kilobytes."""
  def limit(started, size):
    with contextlib.suppress(ProcessLookupError):  # it has ended
      resource.prlimit(started.pid, resource.RLIMIT_FSIZE,
                       (size, resource.RLIM_INFINITY))
  return taken_away(
      server, folder, f'limited-{i}', 'device', stays,
      lambda started, workdir: limit(started, 12000),
      lambda started, workdir: limit(started, resource.RLIM_INFINITY))


def taken_away(server, folder, name, variant, stays, take, give) -> str:
  """Takes the disk from a run that has saved, and maybe gives it back.

  Args:
    server: starts it.
    folder: for data and folders of runs.
    name: of the run's folder, which may be there and empty.
    variant: of `kill.VARIANTS`.
    stays: it is given back only after the end, not when the first save failed.
    take: (process, folder).
    give: the opposite.

  Returns:
    What is wrong with what the run made of it.
  """
  flags = [*kill.flags_of(folder, variant), '--config.rounds=30',
           '--config.checkpoint.every=2']
  whole, workdir = folder / f'whole-{variant}-30', folder / name / 'run'
  if not whole.exists():
    assert server.start_run(whole, *flags).wait() == 0
  started = server.start_run(workdir, *flags)

  def wait_for(there):
    until = time.time() + 120
    while not there() and started.poll() is None and time.time() < until:
      time.sleep(0.001)
  wait_for(lambda: (workdir / 'checkpoints' / '2').exists())
  take(started, workdir)
  if not stays:
    wait_for(lambda: 'could not be saved' in started.out())
    give(started, workdir)
  code, err = started.wait(), started.err()
  if 'could not be saved' not in started.out():
    return f'it said nothing: {started.out()[-300:]}{err[-3000:]}'
  if not stays:
    if code or err:
      return f'exit code {code}: {err[-300:]}'
    return ends.difference(ends.of(workdir), ends.of(whole))
  wrong = '' if (code == 4 and err.count('\n') == 1
                 and err.startswith('error: ')) else (
      f'exit code {code}: {err[-300:]}')
  if not ends.saved(workdir):
    wrong = wrong or 'no checkpoint is left'
  give(started, workdir)
  again = server.start_run(workdir, *flags)
  if again.wait():
    return wrong or again.err()
  return wrong or ends.difference(ends.of(workdir), ends.of(whole))


def _mounted(order: attack.Order,
             rows: list[str]) -> dict[str, attack.Outcome]:
  """Runs the rows that need file systems of their own."""
  probe = subprocess.run(
      ['unshare', '-rm', 'mount', '-t', 'tmpfs', 'none', str(order.folder)],
      capture_output=True, check=False)
  if probe.returncode:
    return {row: attack.Outcome(
        0, 0, 'skipped: nothing may be mounted here') for row in rows}
  done = subprocess.run(
      ['unshare', '-rm', sys.executable, '-m', 'tests.faults.mounts',
       str(order.folder), 'short' if order.short else 'long', *rows],
      cwd=attack.ROOT, text=True, capture_output=True, check=False,
      env={**os.environ, 'PYTHONPATH': str(attack.ROOT)})
  if done.returncode:
    order.say(done.stderr[-500:])
    return {row: attack.Outcome(1, 1, done.stderr[-300:]) for row in rows}
  wrongs = json.loads(done.stdout.splitlines()[-1])
  return {row: outcome(wrongs[row]) for row in rows}
