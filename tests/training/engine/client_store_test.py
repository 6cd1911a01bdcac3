"""Clients in a store: the same bits as on the device, with less memory."""

import json
import pathlib
import tempfile

import hypothesis
from hypothesis import given
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
from rich.console import Console

from fedu_jax.core.state import ClientState, Online
from fedu_jax.runtime import checkpoint
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import prepare
from fedu_jax.training import round_report
from fedu_jax.training import train
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import client_store
from fedu_jax.training.engine import placement
from tests.faults import ends
from tests.helpers import small
from tests.helpers import tiny
from tests.training.engine import device_mesh_test


def config_of(**changes):
  """Eight clients; three train in each round."""
  config = tiny.get_config()
  config.seed = 2  # draws cohorts that show all there is to see, see below
  config.clients, config.cohort = 8, 3
  config.data.max_examples = 400
  config.partition.name = 'dirichlet'  # clients of unequal size
  config.partition.alpha = 5.
  config.partition.min_examples = config.batch_size
  config.evaluation.every = 0
  config.participation.dropout = 0.3
  config.update_from_flattened_dict(changes)
  checks.check(config)
  return config


class Stopped(Exception):
  """Ends a run in a test."""


def run(folder, monkeypatch, *, stop=0, **changes):
  """Runs all rounds, or until the checkpoint after round `stop`."""
  save = checkpoint.Checkpoints.save

  def save_and_stop(self, step, *state):
    save(self, step, *state)
    if step == stop:
      raise Stopped
  with monkeypatch.context() as patched:
    patched.setattr(checkpoint.Checkpoints, 'save', save_and_stop)
    try:
      online = train.train(config_of(**changes), str(folder),
                           console=Console(quiet=True)).federation
    except Stopped:
      return None
  return ends.rows(folder), jax.device_get(online), ends.networks(folder)


def check_same(mine, reference):
  """Checks all metrics, the server, and all clients that have trained."""
  assert mine[0] == reference[0]
  small.check_equal(mine[1:], reference[1:])


@pytest.fixture(scope='module')
def on_device(tmp_path_factory):
  """The run with all clients on the device."""
  with pytest.MonkeyPatch.context() as patch:
    found = run(tmp_path_factory.mktemp('device') / 'run', patch,
                store='device')
  cohorts = [row['cohort'] for row in found[0]]
  # Some come twice running, some after a pause: both ways to come back.
  assert any(set(a) & set(b) for a, b in zip(cohorts, cohorts[1:]))
  assert any((set(a) - set(b)) & set(c) for a, b, c in
             zip(cohorts, cohorts[1:], cohorts[2:]))
  return found


@pytest.mark.parametrize('changes', [
    {'store': 'host'}, {'store': 'disk'},
    {'store': 'host', 'clients_per_device': 2},
    {'store': 'disk', 'clients_per_device': 1},
    {'store': 'disk', 'feed': 'chunks', 'chunk_steps': 1}], ids=str)
def test_a_store_changes_nothing(changes, on_device, tmp_path, monkeypatch):
  check_same(run(tmp_path / 'run', monkeypatch, **changes), on_device)


def test_a_run_in_a_store_goes_on(on_device, tmp_path, monkeypatch):
  """From memory to the device and back: their checkpoints are the same."""
  folder = tmp_path / 'run'
  for stop, changes in enumerate((
      {'store': 'host'}, {'store': 'device'},
      {'store': 'host', 'feed': 'chunks', 'chunk_steps': 2}), start=1):
    assert run(folder, monkeypatch, stop=stop, **changes) is None
  check_same(run(folder, monkeypatch, store='host'), on_device)


def test_a_run_on_disk_goes_on(on_device, tmp_path, monkeypatch):
  """It was killed with files of rounds that no checkpoint names."""
  folder, changes = tmp_path / 'run', {'store': 'disk', 'checkpoint.every': 2}
  add = round_report.RoundReport.add

  def add_and_stop(self, row):
    add(self, row)
    if row['round'] == 4:
      raise Stopped
  with monkeypatch.context() as patched:
    patched.setattr(round_report.RoundReport, 'add', add_and_stop)
    assert run(folder, monkeypatch, **changes) is None
  written = {int(path.stem.split('-')[1])
             for path in (folder / 'clients').rglob('*.msgpack')}
  assert written == {0, 1, 2}  # and two rounds are in the checkpoint
  check_same(run(folder, monkeypatch, **changes), on_device)


def test_cohorts_on_several_devices(tmp_path):
  """Three clients on two devices, in two slices of one client a device."""
  online = device_mesh_test.ask('runs', tmp_path, *map(json.dumps, [
      ('1', 0, {'devices': '1', 'cohort': 3}),
      ('2', 0, {'devices': '2', 'cohort': 3, 'clients_per_device': 1})]))
  for a, b in zip(*online, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_run_stays_on_disk_or_off_it(tmp_path, monkeypatch):
  for first, then in (('disk', 'host'), ('device', 'disk')):
    folder = tmp_path / first
    assert run(folder, monkeypatch, stop=1, store=first) is None
    with pytest.raises(BadInput, match='on disk: set config.store to'):
      run(folder, monkeypatch, store=then)


def small_memory(monkeypatch):
  """Limits the memory that waiting clients may take."""
  monkeypatch.setattr(placement, '_SHARE', 1e-8)


def test_auto_stays_what_it_was(on_device, tmp_path, monkeypatch):
  """A start with less memory does not move or damage clients."""
  folder = tmp_path / 'run'
  assert run(folder, monkeypatch, stop=1, store='auto') is None
  with monkeypatch.context() as patched:
    small_memory(patched)
    with pytest.raises(BadInput, match='go on where there is more'):
      run(folder, patched, store='auto')
  assert not (folder / 'clients').exists()
  check_same(run(folder, monkeypatch, store='auto'), on_device)


def test_auto_is_chosen_for_each_folder(tmp_path, monkeypatch):
  """The federation is on disk, a client alone is not, and stays so."""
  small_memory(monkeypatch)
  folder, changes = tmp_path / 'run', {'store': 'auto', 'evaluation.alone': 1}
  first = run(folder, monkeypatch, **changes)
  assert (folder / 'clients').exists()
  assert (folder / 'alone0' / 'checkpoints').exists()
  assert not (folder / 'alone0' / 'clients').exists()
  check_same(run(folder, monkeypatch, **changes), first)


def test_copies_among_the_files_of_clients_are_let_be(on_device, tmp_path,
                                                      monkeypatch):
  folder = tmp_path / 'run'
  assert run(folder, monkeypatch, stop=2, store='disk') is None
  file = next((folder / 'clients').rglob('*.msgpack'))
  copies = [file.with_name(f'{name}.msgpack') for name in (
      f'{file.stem}.copy', '99-1', '-1', f'{file.stem}-2')]
  for path in copies:
    path.write_bytes(b'a copy')
  check_same(run(folder, monkeypatch, store='disk'), on_device)
  assert {path.read_bytes() for path in copies} == {b'a copy'}


def test_names_of_new_folders_are_on_the_disk_too(tmp_path, monkeypatch):
  """Otherwise a power failure could lose files that a checkpoint names."""
  synced = set()
  sync = durable_files.sync
  monkeypatch.setattr(durable_files, 'sync', lambda path: (
      synced.add(path), sync(path)))
  folder = tmp_path / 'run'
  assert run(folder, monkeypatch, stop=1, store='disk') is None
  assert {folder, folder / 'clients', folder / 'clients' / '0',
          folder / 'checkpoints'} <= synced


# --- stores by themselves --------------------------------------------------

CLIENTS = 5


def row_of(value, round_):
  """A client's state, with one number everywhere."""
  return ClientState(
      Online({'w': np.full((2, 3), value, np.float32)}, {}), {},
      np.float32(0), np.float32(value), np.int32(round_), np.bool_(True))


def make_stores(folder):
  sizes = np.arange(1, CLIENTS + 1, dtype=np.float32)
  new = row_of(-1, -1)
  return (client_store.InMemory(new, sizes),
          client_store.OnDisk(new, sizes, folder / 'clients'))


@given(st.lists(st.tuples(
    st.lists(st.integers(0, CLIENTS - 1), min_size=1, unique=True),
    st.sampled_from(['train', 'train', 'save', 'kill'])), max_size=12))
@hypothesis.settings(max_examples=40, deadline=None)
def test_stores_hold_what_they_are_given(steps):
  """Rounds of training, checkpoints, and kills that go back to the last."""
  with tempfile.TemporaryDirectory() as folder:
    stores = make_stores(pathlib.Path(folder))
    saved, round_ = None, 0
    for who, what in steps:
      ids = np.array(who)
      if what == 'train':
        rows = [row_of(10 * round_ + i, round_)._replace(
            num_examples=np.float32(i + 1)) for i in who]
        rows = jax.tree.map(lambda *x: np.stack(x), *rows)
        for each in stores:
          each.put(ids, rows)
        round_ += 1
      elif what == 'save':
        saved = round_, jax.tree.map(np.array, [x.snapshot() for x in stores])
        for each in stores:
          each.keep_from(round_)  # the only checkpoint there is
      elif saved:
        stores = make_stores(pathlib.Path(folder))
        round_ = saved[0]
        for each, state in zip(stores, saved[1], strict=True):
          each.restore(state)
      small.check_equal(*(each.take(ids) for each in stores))
    if saved and (steps[-1][1] == 'save'):
      # No file is left that the only checkpoint does not name.
      files = list(pathlib.Path(folder, 'clients').rglob('*.msgpack'))
      assert len(files) == (saved[1][1] >= 0).sum()


# --- which store -----------------------------------------------------------


def choose(monkeypatch, *, device, host, **changes):
  """Returns the store chosen for so many bytes of memory."""
  config = config_of(**changes)
  data = prepare.data_of(config)
  monkeypatch.setattr(placement, 'device_bytes', lambda: device)
  monkeypatch.setattr(host_memory, 'host_bytes', lambda: host)
  return placement.choose(
      build.recipe(config), prepare.networks_of(config, data)[1],
      data.train_images,
      prepare.parts_of(config, data), num_members=1)


@pytest.mark.parametrize('changes, device, host, chosen', [
    ({}, 1e9, 1e9, ('device', 3)),
    ({}, 1e3, 1e9, ('host', 3)),  # the device has no room for all eight
    ({'cohort': 0}, 1e3, 1e9, ('device', 8)),  # all of them must be there
    ({'clients_per_device': 2}, 1e9, 1e9, ('host', 2)),
    ({'clients_per_device': 3}, 1e9, 1e9, ('device', 3)),
    ({'store': 'host'}, 1e9, 1e9, ('host', 3)),
    ({}, 1e3, 1e3, ('disk', 3)),  # nor has the host
    ({'store': 'disk'}, 1e3, 1e3, ('disk', 3))])
def test_the_store_that_is_chosen(changes, device, host, chosen, monkeypatch):
  found = choose(monkeypatch, device=device, host=host, **changes)
  assert (found.store, found.layout.num_clients) == chosen


@pytest.mark.parametrize('changes, host, words', [
    ({'store': 'host'}, 1e3, 'set config.store to disk'),
    ({'store': 'device', 'clients_per_device': 1}, 1e9, 'store to auto'),
    ({'clients_per_device': 1, 'aggregation.name': 'fedca',
      'learner.name': 'fedca', 'rule.name': 'fedca'}, 1e9,
     'a whole cohort at once: set it to 0')])
def test_stores_that_cannot_be(changes, host, words, monkeypatch):
  with pytest.raises(BadInput, match=words):
    choose(monkeypatch, device=1e3, host=host, **changes)
