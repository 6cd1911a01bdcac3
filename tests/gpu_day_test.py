"""A day on a rented GPU: its time is kept, and a cut loses one stage."""

import contextlib
import io
import json
import lzma
import pathlib
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
from PIL import Image
import pytest

from benchmarks.gpu_day import commands
from benchmarks.gpu_day import data
from benchmarks.gpu_day import day
from benchmarks.gpu_day import report
from benchmarks.gpu_day import sizes
from benchmarks.gpu_day.budget import Budget
from benchmarks.gpu_day.budget import Stage
from benchmarks.gpu_day.records import NAME
from benchmarks.gpu_day.records import Records

ROOT = pathlib.Path(__file__).parents[1]


class Clock:
  """A clock that moves when it is told to."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class Worker:
  """A worker whose stages take seconds of a clock, fail or overrun."""

  def __init__(self, clock, seconds, wrong=()):
    self.clock, self.seconds, self.wrong = clock, seconds, wrong
    self.asked: list[str] = []

  def ask(self, stage, seconds):
    self.asked.append(stage)
    took = self.seconds.get(stage, 5)
    self.clock.now += min(took, seconds)
    if took > seconds:
      raise TimeoutError
    return 'ValueError: no' if stage in self.wrong else ''

  def close(self):
    pass


def call(records, seconds, clock, worker):
  setting = commands.Setting(ROOT, ROOT, ROOT, sizes.TINY, {}, None, seconds)
  day.Day(records, Budget(seconds, clock=clock), worker, setting).measure(
      [x.name for x in sizes.MEASUREMENTS if x.name != 'same'])


def kinds(records):
  """Returns how each stage ended last."""
  return {x['stage']: x['kind'] for x in records.read()}


def test_a_stage_gets_its_share_or_what_is_left_or_nothing():
  clock = Clock()
  budget, stage = Budget(100, clock=clock), Stage('it', 20, 60, '')
  assert budget.allowance(stage) == 60
  clock.now += 50
  assert budget.allowance(stage) == 50
  clock.now += 31
  assert budget.allowance(stage) == 0 and budget.left() == 19
  clock.now += 31
  assert budget.left() == 0


def test_a_longer_call_gives_a_stage_more():
  clock, stage = Clock(), Stage('it', 20, 60, '')
  assert Budget(390, clock=clock).allowance(stage) == 60
  assert Budget(1170, clock=clock).allowance(stage) == 180
  assert Budget(1170, measuring=0.1, clock=clock).allowance(stage) == 117


def test_after_the_first_call_measurements_leave_time_for_the_paper():
  clock = Clock()
  budget, stage = Budget(100, measuring=0.35, clock=clock), Stage(
      'it', 20, 60, '')
  assert budget.allowance(stage) == 35
  clock.now += 16
  assert budget.allowance(stage) == 0 and budget.left() == 84


def test_what_does_not_fit_is_skipped_and_said(tmp_path):
  clock, records = Clock(), Records(tmp_path / NAME)
  call(records, 100, clock, Worker(clock, {'peer': 70}))
  found = kinds(records)
  assert [found[x] for x in ('device', 'guard', 'peaks', 'peer')] == ['end'] * 4
  assert found['executions'] == 'skipped'  # 15 s are left, it needs 30
  assert found['profile'] == 'end'  # it needs 15
  assert clock.now <= 200
  assert 'executions  skipped' in report.text(records)


def test_a_stage_that_overruns_is_cut_and_the_next_ones_run(tmp_path):
  clock, records = Clock(), Records(tmp_path / NAME)
  call(records, 500, clock, Worker(clock, {'guard': 10**6}, wrong=('peaks',)))
  found = kinds(records)
  assert found['guard'] == 'cut' and found['peaks'] == 'failed'
  assert found['peer'] == found['profile'] == 'end'


def test_a_later_call_runs_what_the_first_did_not_reach(tmp_path):
  clock = Clock()
  first = Records(tmp_path / 'first' / NAME)
  first.path.parent.mkdir()
  call(first, 500, clock, Worker(clock, {'guard': 10**6}))
  with open(first.path, 'a') as file:
    file.write('{"time": 1.0, "stage": "pee')  # the cut came within a line
  second = Records(tmp_path / NAME)
  second.take([tmp_path / 'absent', tmp_path / 'first'])
  worker = Worker(clock, {})
  call(second, 500, clock, worker)
  assert worker.asked == ['guard']
  assert set(kinds(second).values()) == {'end'}


def test_rows_of_one_name_are_kept_once_the_last(tmp_path):
  records = Records(tmp_path / NAME, 'peaks')
  records.add('row', name='float32', median=1.0)
  records.add('row', name='float32', median=2.0)
  assert [x['median'] for x in records.rows('peaks')] == [2.0]
  assert records.of('peer').rows('peer') == []


def test_the_report_compares_with_the_aims(tmp_path):
  records = Records(tmp_path / NAME, 'peer')
  for name, rate, share in (('ours, one client, bfloat16', 9e3, 0.36),
                            ('PyTorch, eager, bfloat16', 4e3, 0.16),
                            ('PyTorch, compile, bfloat16', 8e3, 0.32)):
    records.add('row', name=name, images_per_second=rate,
                of_bfloat16_peak=share)
  records.of('memory').add(
      'row', name='round', round_seconds=12.0, program_bytes=2.5e6,
      planned_bytes=3e9, used_bytes=None)
  text = report.text(records)
  assert 'program 0.0025 GB, planned 3, use unknown' in text
  assert 'products: 0.36; the aim is 0.35: reached' in text
  assert 'PyTorch, eager: 2.25; the aim is 3: missed' in text
  assert 'PyTorch, compile: 1.12; the aim is 1: reached' in text
  assert 'would take 20.0 minutes' in text and 'extrapolation' in text


def test_the_schedule_fits_what_was_measured(tmp_path):
  records = Records(tmp_path / NAME, 'memory')
  records.add('row', name='round', round_seconds=10.0, compile_seconds=40.0)
  fit = commands.rounds_that_fit
  assert fit(records, 400) == 30  # 40 s to compile, 60 s for start and scores
  assert fit(records, 400, compiled=True) == 34
  assert fit(records, 40) == 0
  assert commands.planned_rounds(400, records) == 14  # in 60 % of a call
  records.add('row', name='foreseen', rounds=14)
  rounds = [commands.rounds_to_run(records, x, 400)
            for x in (400, 270, 205, 195, 120)]
  # All that fits; the compiled ones, twice; fewer; what the next call ends.
  assert rounds == [30, 14, 14, 9, 14]
  records.add('row', name='round', round_seconds=0.1, compile_seconds=4.0)
  assert fit(records, 400) == 100


def test_images_come_back_as_they_were_stored(tmp_path):
  draw = np.random.RandomState(0)
  stored = []
  for _ in range(5):
    made = io.BytesIO()
    Image.fromarray(draw.randint(0, 256, (32, 32, 3), np.uint8)).save(
        made, 'JPEG')
    stored.append(made.getvalue())
  archive, npz = tmp_path / 'it.xz', tmp_path / 'it.npz'
  archive.write_bytes(lzma.compress(b''.join(stored)))
  with lzma.open(archive.with_suffix('.labels'), 'wt') as file:
    json.dump({'note': 'five', 'lengths': [len(x) for x in stored],
               'train_labels': [4, 5, 6], 'test_labels': [7, 8]}, file)
  assert data.unpack(archive, npz) == 'five'
  with np.load(npz) as found:
    assert found['train_labels'].tolist() == [4, 5, 6]
    assert found['test_labels'].tolist() == [7, 8]
    images = np.concatenate([found['train_images'], found['test_images']])
  for image, own in zip(images, stored, strict=True):
    np.testing.assert_array_equal(image, Image.open(io.BytesIO(own)))
  data.unpack(archive, npz, most=1)
  with np.load(npz) as found:
    assert found['train_labels'].tolist() == [4]
    assert found['test_labels'].tolist() == [7]
    np.testing.assert_array_equal(found['test_images'][0], images[3])


def test_what_is_too_large_to_travel_is_refused(tmp_path, monkeypatch):
  from benchmarks.gpu_day import packing
  monkeypatch.chdir(ROOT)
  (tmp_path / 'cifar10.xz').write_bytes(bytes(2**21))
  text = packing.measured(tmp_path)
  assert 'cifar10.xz 2.0' in text and 'of 64 MiB' in text
  monkeypatch.setattr(packing, 'ROOM', 2**21)
  with pytest.raises(SystemExit, match='too large: tree .*--there'):
    packing.measured(tmp_path)


def test_digests_ignore_the_clock_and_nothing_else(tmp_path):
  from benchmarks.gpu_day import digest
  from fedu_jax.runtime.checkpoint import Checkpoints

  def of(loss, seconds, weight, key):
    folder = tmp_path / f'{loss} {seconds} {weight} {key}'
    state = {'a': np.full(3, weight, np.float32), 'rng': jax.random.key(key)}
    with contextlib.closing(Checkpoints(folder / 'checkpoints',
                                        keep=1)) as saved:
      saved.save(1, state)
    (folder / 'metrics.jsonl').write_text(json.dumps(
        {'round': 1, 'loss': loss, 'seconds': seconds}) + '\n')
    return digest.of(folder)
  first = of(1.0, 2.0, 3.0, 4)
  assert of(1.0, 2.5, 3.0, 4) == first
  assert of(1.5, 2.0, 3.0, 4)['metrics'] != first['metrics']
  for other in (
      of(1.0, 2.0, np.nextafter(np.float32(3), np.float32(4)), 4),
      of(1.0, 2.0, 3.0, 5)):
    assert other['metrics'] == first['metrics']
    assert other['state'] != first['state']


def start(folder, *more):
  return subprocess.Popen(
      [sys.executable, '-m', 'benchmarks.gpu_day', 'run', '--rehearse',
       f'--out={folder / "out"}', f'--work={folder / "work"}',
       f'--folder={folder / "absent"}', *more], cwd=ROOT, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_killed_call_loses_the_stage_in_progress(tmp_path):
  """Killed as the second stage begins; the next call begins with it."""
  records = Records(tmp_path / 'out' / NAME)
  running = start(tmp_path, '--only=device,peaks', '--seconds=90')
  until = time.time() + 60
  while kinds(records).get('peaks') != 'begin' and time.time() < until:
    time.sleep(0.02)
  running.send_signal(signal.SIGKILL)
  running.communicate()
  assert kinds(records) == {'': 'call', 'device': 'end', 'peaks': 'begin'}
  again = start(tmp_path, '--only=device,peaks', '--seconds=300')
  output, _ = again.communicate(timeout=90)
  assert again.returncode == 0, output
  assert [(x['stage'], x['kind']) for x in records.read()
          if x['kind'] in ('begin', 'end')] == [
              ('device', 'begin'), ('device', 'end'), ('peaks', 'begin'),
              ('peaks', 'begin'), ('peaks', 'end')]
  assert records.row('peaks', 'bfloat16')['median'] > 0
  assert records.row('device', 'device')['versions']['jax']
  assert 'peaks       done' in (tmp_path / 'out' / 'report.txt').read_text()
  assert records.path.read_text() == (
      tmp_path / 'work' / 'last' / NAME).read_text()


def test_a_variant_without_time_is_left_to_the_next_call(tmp_path):
  from benchmarks.gpu_day import steps
  from benchmarks.gpu_day import worker
  records = Records(tmp_path / NAME, 'dtypes')

  def compiled(seconds):
    work = worker.Work(records, tmp_path, tmp_path, sizes.TINY,
                       time.time() + seconds, 100)
    made = steps.compile_in_time(work, {
        'one': lambda: steps.Variant(lambda: 0.5, 10, 4.0, {})})
    if made:
      steps.time_in_turns(work, made)
    steps.all_ready(work)
  with pytest.raises(TimeoutError, match='left out: one'):
    compiled(1)
  compiled(60)
  assert records.row('dtypes', 'one')['images_per_second'] == 20


def test_kernels_are_those_of_a_gpus_streams():
  from benchmarks.gpu_day.stages import profile

  def line(name, *events):
    return types.SimpleNamespace(name=name, events=[types.SimpleNamespace(
        name=x, duration_ns=ns, stats=[('hlo_op', x)]) for x, ns in events])
  gpu = types.SimpleNamespace(name='/device:GPU:0', lines=[
      line('Stream #1(Compute)', ('fusion_1', 2000), ('fusion_2', 1000)),
      line('XLA Ops', ('fusion_1', 2000))])
  host = types.SimpleNamespace(name='/host:CPU', lines=[
      line('python', ('dot', 500))])

  def kernels(*planes):
    return list(profile.kernels_of(types.SimpleNamespace(planes=planes)))
  assert kernels(host, gpu) == [
      ('fusion_1', pytest.approx(2e-6)), ('fusion_2', pytest.approx(1e-6))]
  assert kernels(host) == [('dot', pytest.approx(5e-7))]
