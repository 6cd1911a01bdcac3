"""Clients spread over devices: the same numbers, and what it costs to agree.

Each case is a process of its own that is made to see eight CPU devices.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fedu_jax import protocols

EIGHT = {'XLA_FLAGS': os.environ['XLA_FLAGS']
         + ' --xla_force_host_platform_device_count=8'}


def ask(*words):
  done = subprocess.run(
      [sys.executable, str(pathlib.Path(__file__).parent / 'eight.py'),
       *map(str, words)], env=os.environ | EIGHT, text=True,
      capture_output=True, check=False, timeout=600)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize('devices, clients, aggregation, reductions', [
    (8, 8, 'fedavg', 1), (2, 4, 'fedavg_target', 1), (4, 8, 'ldawa', 1),
    (2, 2, 'fedsc', 2)])
def test_devices_agree_in_one_or_two_all_reduces(devices, clients, aggregation,
                                                 reductions):
  """Of a convolutional model, since that is where sharding by hints breaks.

  Each device adds its own clients, and then the devices' sums are added: a
  rounding of 1e-7, which a second round of training amplifies.
  """
  found = ask('rounds', devices, 1, clients, aggregation)
  assert set(found['collectives']) == {'all-reduce'}
  assert found['collectives']['all-reduce'] <= reductions  # XLA may merge two
  assert found['rows'] == [[devices, clients // devices]]
  assert found['server rows'] == [True]  # whole on each
  assert max(found['apart']) < 1e-4, found['apart']


@pytest.mark.parametrize('devices, group, clients', [(4, 4, 1), (4, 2, 4)])
def test_devices_that_share_a_clients_batches(devices, group, clients):
  """Products, BatchNorm and gradients are of the whole batch, as on one device.

  So the numbers agree to rounding; statistics of each device's own quarter of a
  batch would differ by far more. Nothing is gathered.
  """
  found = ask('rounds', devices, group, clients, 'fedavg')
  assert set(found['collectives']) == {'all-reduce'}
  assert found['collectives']['all-reduce'] > 10  # BatchNorm's, and gradients
  assert found['rows'] == [[devices, clients * group // devices]]
  assert found['server rows'] == [True]
  assert max(found['apart']) < 1e-4, found['apart']


def test_clients_that_do_not_divide_evenly_are_padded():
  """Five on two devices, some of whose uploads are lost."""
  found = ask('rounds', 2, 1, 5, 'fedavg')
  assert found['rows'] == [[2, 3]]
  assert found['collectives'] == {'all-reduce': 1}
  assert 0 < sum(found['arrived']) < 5 == len(found['arrived'])
  assert max(found['apart']) < 1e-4, found['apart']


def test_an_aggregation_that_is_no_sum_sees_all_uploads():
  """FedCA's server queues single keys: gathered, and the padding left out."""
  found = ask('rounds', 2, 1, 3, 'fedca')
  assert found['collectives']['all-gather'] > 0
  assert max(found['apart']) < 1e-4, found['apart']


def test_a_run_moves_between_numbers_of_devices(tmp_path):
  """Eight clients: on eight devices, on one, on two, and back."""
  for stop, devices in enumerate((8, 1, 2), start=1):
    assert ask('run', devices, tmp_path / 'moved', stop, 'clients=8') == {}
  moved = ask('run', 8, tmp_path / 'moved', 0, 'clients=8')['online']
  whole = ask('run', 1, tmp_path / 'whole', 0, 'clients=8')['online']
  # What several devices wrote is read on one.
  scores = protocols.ask(tmp_path / 'moved', 'knn')
  assert 0 < scores['knn'] < 1
  for a, b in zip(moved, whole, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  rows = [(tmp_path / name / 'metrics.jsonl').read_text().splitlines()
          for name in ('moved', 'whole')]
  assert len(rows[0]) == len(rows[1]) == 4
