"""The rows of rounds on disk: metrics.jsonl, and TensorBoard's events.

A disk that cannot be written to does not end a run. Rows wait in memory; events
are expendable.
"""

from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import platform
import re
import time
from typing import Any, BinaryIO

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto import summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput

Row = dict[str, Any]

# What is read of a row again.
_NEEDED = {'round': int, 'seconds': float, 'images': int}


class Lines:
  """metrics.jsonl: one whole line for each round up to the last, in order."""

  def __init__(self, path: pathlib.Path, done: int,
               see: Callable[[Row], None] = lambda row: None):
    """Reads what an earlier start wrote.

    Args:
      path: of the file.
      done: rounds completed. Lines beyond were lost with the state that they
        led to, as is one that was cut short; both are cut off.
      see: is shown each row that stays.

    Raises:
      BadInput: the file is there and cannot be read.
    """
    self._path = path
    self.beyond = done  # the last round that was lost so
    self.missing = done  # rounds up to `done` that have no line
    text = _read(path)
    whole, last = [], 0
    for line in text.splitlines(True):
      row = _row(line)
      if last < row['round'] <= done:
        see(row)
        whole.append(line)
        self.missing -= 1
        last = row['round']
      self.beyond = max(self.beyond, row['round'])
    kept = b''.join(whole)
    # What is right in the file, in bytes; all that comes after is to go.
    self._end = len(kept) if text.startswith(kept) else 0
    self._unwritten = kept[self._end:]
    with contextlib.suppress(OSError):  # `settle` tries again, and says so
      self.settle()

  def add(self, row: Row) -> None:
    """Writes a row, as soon as that can be done."""
    self._unwritten += json.dumps(row).encode() + b'\n'
    with contextlib.suppress(OSError):
      self.settle()

  def settle(self) -> None:
    """Writes all rows; returns when they are on disk.

    Raises:
      OSError: they cannot be written; they wait.
    """
    self._path.parent.mkdir(parents=True, exist_ok=True)
    if self._end:
      with open(self._path, 'ab') as file:
        file.truncate(self._end)
        file.write(self._unwritten)
        file.flush()
        os.fsync(file.fileno())
    else:
      durable_files.write(self._path, self._unwritten)
    self._end += len(self._unwritten)
    self._unwritten = b''


def last(path: pathlib.Path) -> int:
  """The last round that a file of rows tells of; 0, if of none.

  Raises:
    BadInput: it cannot be read.
  """
  return max((_row(line)['round'] for line in _read(path).splitlines(True)),
             default=0)


def _read(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    return b''
  except OSError as error:
    raise BadInput(f'{path} cannot be read ({error.strerror}): make it '
                   'readable, or move it away') from error


def _row(line: bytes) -> Row:
  """What a line says; of round 0, if it is not whole or no row of ours."""
  try:
    row = json.loads(line) if line.endswith(b'\n') else {}
  except ValueError:  # of the text or of its encoding
    row = {}
  return row if isinstance(row, dict) and all(
      isinstance(row.get(name), kind) for name, kind in _NEEDED.items()
  ) else {'round': 0}


class Board:
  """TensorBoard's events; after the first failure none in this start."""

  def __init__(self, folder: pathlib.Path, done: int,
               say: Callable[[str], None]):
    """Begins a file of events.

    Args:
      folder: of the files, one for each start.
      done: rounds completed; events beyond, in other files, are not shown.
      say: tells a person of a failure.
    """
    self._say = say
    self._file: BinaryIO | None = None
    with self._or_without():
      folder.mkdir(parents=True, exist_ok=True)
      # TensorBoard reads files in the order of their names. A name that began
      # with the time would be out of order after a clock was set back, and two
      # starts in one second would share a name. So each start has a number.
      starts = [int(match[1]) for path in folder.iterdir()
                if (match := re.match(r'events\.start(\d+)\.', path.name))]
      name = f'events.start{1 + max(starts, default=0):06d}.out.tfevents'
      self._file = open(folder / (
          f'{name}.{int(time.time()):010d}.{platform.node()}'), 'wb')
      for event in (
          event_pb2.Event(file_version='brain.Event:2'),
          event_pb2.Event(session_log=event_pb2.SessionLog(
              status=event_pb2.SessionLog.START))):
        self._put(event, done + 1)

  def add(self, round_: int, values: dict[str, float]) -> None:
    """Writes numbers of a round under their names."""
    with self._or_without():
      for name, value in values.items():
        self._put(event_pb2.Event(summary=summary_pb2.Summary(value=[
            summary_pb2.Summary.Value(
                tag=re.sub(r'[^-/\w.]', '_', name), simple_value=value)])),
                  round_)
      if self._file:
        self._file.flush()
        os.fsync(self._file.fileno())

  def close(self) -> None:
    """Ends the file."""
    with self._or_without():
      if self._file:
        self._file.close()

  def _put(self, event, round_):
    event.step, event.wall_time = round_, time.time()
    if self._file:
      RecordWriter(self._file).write(event.SerializeToString())

  @contextlib.contextmanager
  def _or_without(self):
    try:
      yield
    except OSError as error:
      self._file = None
      self._say('TensorBoard cannot be written '
                f'({durable_files.reason(error)}): no more of it until the '
                'next start')
