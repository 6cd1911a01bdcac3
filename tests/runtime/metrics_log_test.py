"""TensorBoard's files under wrong clocks: none is lost or misread."""

import time

import pytest
from tensorboard.backend.event_processing import event_file_loader

from fedu_jax.runtime import metrics_log


def events(path):
  """Returns all events of a file, as TensorBoard reads them."""
  return list(event_file_loader.LegacyEventFileLoader(str(path)).Load())


def steps(path):
  """Returns the rounds of a file's events with numbers."""
  return [event.step for event in events(path) if event.HasField('summary')]


def test_tensorboard_reads_names_and_numbers(tmp_path):
  """A start hides events of rounds that an earlier start lost."""
  board = metrics_log.Board(tmp_path, 3, pytest.fail)
  board.add(4, {'loss': 0.5, 'client1/a b': 2})
  path, = tmp_path.iterdir()  # on disk before it is closed
  version, start, *rest = events(path)
  assert version.file_version == 'brain.Event:2'
  assert start.session_log.status == start.session_log.START
  assert (version.step, start.step) == (4, 4)
  assert [(x.step, x.summary.value[0].tag, x.summary.value[0].simple_value)
          for x in rest] == [(4, 'loss', 0.5), (4, 'client1/a_b', 2)]
  board.close()


@pytest.mark.parametrize('clock', [
    [2e9, 1e9, 1.5e9], [1e9, 1e9, 1e9], [1e9, 2e9, 3e9]])
def test_starts_are_read_in_the_order_they_were_made(tmp_path, monkeypatch,
                                                     clock):
  """The clock was set back, or is another host's. Of three starts in one
  second, later ones would overwrite the first one's file.
  """
  for start, now in enumerate(clock):
    monkeypatch.setattr(time, 'time', lambda now=now: now)
    board = metrics_log.Board(tmp_path, 2 * start, pytest.fail)
    for round_ in (1, 2):
      board.add(2 * start + round_, {'loss': 0.5})
    board.close()
  # TensorBoard reads what has tfevents in its name, by name.
  files = sorted(x for x in tmp_path.iterdir() if 'tfevents' in x.name)
  assert [steps(x) for x in files] == [[1, 2], [3, 4], [5, 6]]


def test_files_of_an_earlier_version_are_read_first(tmp_path):
  old = tmp_path / 'events.out.tfevents.9999999999.zz'
  old.touch()
  metrics_log.Board(tmp_path, 3, pytest.fail).close()
  assert sorted(tmp_path.iterdir())[0] == old and len(
      list(tmp_path.iterdir())) == 2
