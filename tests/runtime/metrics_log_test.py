"""TensorBoard's files under clocks that are wrong: none lost, none misread."""

import time

import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from fedu_jax.runtime import metrics_log


def steps(path):
  """The rounds of a file's events that hold numbers."""
  content, found = path.read_bytes(), []
  while content:  # its length, a checksum, the record, a checksum
    size = int.from_bytes(content[:8], 'little')
    event = event_pb2.Event.FromString(content[12:12 + size])
    if event.HasField('summary'):
      found.append(event.step)
    content = content[16 + size:]
  return found


@pytest.mark.parametrize('clock', [
    [2e9, 1e9, 1.5e9], [1e9, 1e9, 1e9], [1e9, 2e9, 3e9]])
def test_starts_are_read_in_the_order_they_were_made(tmp_path, monkeypatch,
                                                     clock):
  """A clock set back, or another host's; and three starts in one second, of
  which the later ones would empty the earlier ones' file."""
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
  RecordWriter(str(old)).close()
  metrics_log.Board(tmp_path, 3, pytest.fail).close()
  assert sorted(tmp_path.iterdir())[0] == old and len(
      list(tmp_path.iterdir())) == 2
