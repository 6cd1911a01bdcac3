"""Clients on several devices: the same numbers, and the cost of agreement.

A process of its own sees eight CPU devices.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fedu_jax.training import score_run

ROOT = pathlib.Path(__file__).parents[3]
EIGHT = {'XLA_FLAGS': os.environ['XLA_FLAGS']
         + ' --xla_force_host_platform_device_count=8'}


def ask(*words):
  done = subprocess.run(
      [sys.executable, '-m', 'tests.helpers.eight', *map(str, words)],
      env=os.environ | EIGHT, text=True, capture_output=True, check=False,
      cwd=ROOT, timeout=1200)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


# devices, how many of them share a client, clients, aggregation
OWN = [(8, 1, 8, 'fedavg', 1), (4, 1, 8, 'ldawa', 1),
       (2, 1, 2, 'fedsc', 2)]  # and reductions
SHARED = [(4, 4, 1, 'fedavg'), (4, 2, 8, 'fedavg')]
RAGGED = (4, 2, 4, 'fedavg', 'ragged')
PADDED, NO_SUM = (2, 1, 5, 'fedavg_target'), (2, 1, 3, 'fedca')


@functools.cache
def answers():
  """The results of all cases, from one process."""
  cases = [*(case[:4] for case in OWN), *SHARED, RAGGED, PADDED, NO_SUM]
  return dict(zip(cases, ask('rounds', *(
      ','.join(map(str, case)) for case in cases)), strict=True))


def assert_as_on_one_device(found):
  """By NumPy's maximum, which is NaN if a number is NaN."""
  assert np.max(found['apart']) < 1e-4, found['apart']


@pytest.mark.parametrize('devices, each, clients, aggregation, reductions', OWN)
def test_devices_agree_in_one_or_two_all_reduces(devices, each, clients,
                                                 aggregation, reductions):
  """The model has convolutions, where sharding by hints would fail.

  Each device adds its own clients, and then the devices' sums are added. That
  is a rounding of 1e-7, which a second round of training amplifies.
  """
  found = answers()[devices, each, clients, aggregation]
  assert set(found['collectives']) == {'all-reduce'}
  assert found['collectives']['all-reduce'] <= reductions  # XLA may merge two
  assert found['rows'] == [[devices, clients // devices]]
  assert found['server rows'] == [True]  # whole on each
  assert_as_on_one_device(found)


@pytest.mark.parametrize('devices, group, clients, aggregation', SHARED)
def test_devices_that_share_a_clients_batches(devices, group, clients,
                                              aggregation):
  """Products, BatchNorm and gradients use the whole batch, as on one device.

  So numbers agree to rounding. Statistics of a device's quarter of a batch
  would differ much more. Nothing is gathered.
  """
  found = answers()[devices, group, clients, aggregation]
  assert set(found['collectives']) == {'all-reduce'}
  assert found['collectives']['all-reduce'] > 10  # BatchNorm's, and gradients
  assert found['rows'] == [[devices, clients * group // devices]]
  assert found['server rows'] == [True]
  assert_as_on_one_device(found)


def test_devices_that_share_batches_do_the_same_steps():
  """Clients of different sizes, and some stop early, on two groups of two.

  A collective waits for all devices. One in a branch, or in a loop that ends
  after a client's own steps, would wait for ever if the other group skips it.
  """
  found = answers()[RAGGED]
  assert len(set(found['steps'])) > 2
  assert found['collectives']['all-reduce'] > 10
  assert found['uneven'] == []
  assert_as_on_one_device(found)


def test_clients_that_do_not_divide_evenly_are_padded():
  """Five clients on two devices, with some lost uploads."""
  found = answers()[PADDED]
  assert found['rows'] == [[2, 3]]
  assert found['collectives'] == {'all-reduce': 1}
  assert 0 < sum(found['arrived']) < 5 == len(found['arrived'])
  assert_as_on_one_device(found)


def test_an_aggregation_that_is_no_sum_sees_all_uploads():
  """FedCA's server needs single keys: they are gathered, without padding."""
  found = answers()[NO_SUM]
  assert found['collectives']['all-gather'] > 0
  assert_as_on_one_device(found)


def test_a_run_moves_between_numbers_of_devices(tmp_path):
  """Eight clients: on eight devices, on one, on two, and on eight again."""
  orders = [('moved', stop, {'devices': devices, 'clients': 8})
            for stop, devices in ((1, '8'), (2, '1'), (3, '2'), (0, '8'))]
  *stopped, moved, whole = ask('runs', tmp_path, *map(json.dumps, [
      *orders, ('whole', 0, {'devices': '1', 'clients': 8})]))
  assert stopped == [None] * 3
  # What several devices wrote is read on one.
  scores = score_run.ask(tmp_path / 'moved', 'knn')
  assert 0 < scores['knn'] < 1
  for a, b in zip(moved, whole, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  rows = [(tmp_path / name / 'metrics.jsonl').read_text().splitlines()
          for name in ('moved', 'whole')]
  assert len(rows[0]) == len(rows[1]) == 4
