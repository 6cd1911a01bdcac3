"""The benchmarks run, check their own work, and report their numbers."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from benchmarks.lib import workload

ROOT = pathlib.Path(__file__).parents[1]
FIELDS = {
    'scan_over_unlooped', 'clients5_over_single', 'torch_over_jax',
    'augment_fraction', 'fraction_of_matmul_peak', 'compile_seconds', 'device',
    'dtype', 'width', 'batch'}


@pytest.mark.parametrize('name, measured', [
    ('step', {'scan_over_unlooped', 'clients5_over_single', 'augment_fraction',
              'fraction_of_matmul_peak'}),
    ('conv', set()), ('round', {'clients5_over_single'}),
    ('augment', {'augment_fraction'}),
    ('clients', {'host_most_over_fewest', 'traffic_over_round'}),
    ('peer', {'scan_over_unlooped', 'torch_over_jax',
              'fraction_of_matmul_peak'})])
def test_quick(name, measured):
  if name == 'peer':
    pytest.importorskip(
        'torch', reason="parity needs PyTorch: pip install -e '.[parity]'")
  done = subprocess.run(
      [sys.executable, '-m', f'benchmarks.{name}_bench', '--quick', '--json',
       '--repetitions=2'], cwd=ROOT, text=True, capture_output=True,
      # The cases of a benchmark share programs.
      env={**os.environ, 'JAX_COMPILATION_CACHE_DIR':
           jax.config.jax_compilation_cache_dir},
      check=False, timeout=600)
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads(done.stdout)
  assert FIELDS <= found.keys()
  for field in measured | {'compile_seconds'}:
    assert found[field] > 0
  assert (found['dtype'], found['width'], found['batch']) == ('float32', 4, 8)
  if name == 'clients':  # what is on the device does not grow with them
    assert found['host_memory_most_over_fewest'] == 1
    assert found['device_memory_most_over_fewest'] > 1.1


def test_a_folder_is_decoded_once_by_the_benchmark_of_decoding(
    tmp_path, capsys):
  from benchmarks import decode_bench
  flags = argparse.Namespace(files=6, clients=2, pixels=20)
  decode_bench._make(tmp_path / 'clients', flags)
  first, again = (decode_bench.main(
      [f'--folder={tmp_path}', '--load', '--size=16']) or json.loads(
          capsys.readouterr().out) for _ in range(2))
  assert first['images'] == 6 and first['digest'] == again['digest']
  assert first['files a second'] > 0 and not again['files a second']


def test_the_table_of_convolutions_has_a_column_for_each_way(capsys):
  from benchmarks import conv_bench
  conv_bench.main(['--quick', '--convolution=exact', '--unlooped',
                   '--repetitions=1'])
  heads, *rows, _ = capsys.readouterr().out.splitlines()
  assert heads.split('  ')[-1].strip() == conv_bench.EXACT
  assert rows and all(len(row[44:].split()) == 3 for row in rows)


def test_precision(capsys):
  from benchmarks import precision_bench
  precision_bench.main(['--quick', '--json', '--repetitions=2'])
  found = json.loads(capsys.readouterr().out)
  assert set(found['network']) == set(precision_bench.NETWORK)
  assert 'layer2_0/shortcut 4>8/2 at 8' in found['layers']
  for rows in (found['network'], *found['layers'].values()):
    for errors in rows.values():
      assert {'fast', 'exact'} <= errors.keys()
      # Rounding, and not none: what is compared is float32 and float64.
      assert all(1e-9 < x < 1e-4 for own in errors.values() for x in own)


def test_work_that_differs_is_not_timed():
  from benchmarks.lib import timing
  timing.check('same', timing.movement_error([0.], [1.], [1.]), 0.01)
  for other in (1.1, float('nan')):
    with pytest.raises(SystemExit, match='nothing was timed'):
      timing.check('other', timing.movement_error([0.], [other], [1.]), 0.01)


def test_a_step_has_as_many_operations_in_bfloat16():
  """Dense layers with narrow factors count as others do."""
  found = []
  for dtype in ('float32', 'bfloat16'):
    args = argparse.Namespace(batch=2, width=2, hidden=64, features=32,
                              dtype=dtype, model='resnet6', size=8)
    found.append(workload.operations(workload.make(args), args))
  assert found[0] == found[1] > 2 * 2 * 4 * 64 * 32
