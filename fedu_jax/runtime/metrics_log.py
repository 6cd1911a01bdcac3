"""The log of rounds on disk: metrics.jsonl and TensorBoard's events.

A disk that cannot be written does not end a run: rows wait in memory, and
events are dropped.
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

# The fields of a row that are read again, and their types.
_NEEDED = {'round': int, 'seconds': float, 'images': int}


class Lines:
  """metrics.jsonl: one line for each round, in order.

  Attributes:
    beyond: the last round of a line that was cut off; `done` if there is none.
    missing: the number of rounds up to `done` without a line.
  """

  def __init__(self, path: pathlib.Path, done: int,
               see: Callable[[Row], None] = lambda row: None):
    """Reads the lines of earlier starts.

    Args:
      path: the file.
      done: the completed rounds of the restored state. Lines of later rounds
        and incomplete lines are cut off.
      see: called with each row that stays.

    Raises:
      BadInput: the file exists and cannot be read.
    """
    self._path = path
    self.beyond = done
    self.missing = done
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
    # The bytes of the file that stay; what follows is cut off.
    self._end = len(kept) if text.startswith(kept) else 0
    self._unwritten = kept[self._end:]
    with contextlib.suppress(OSError):  # a later `settle` reports it
      self.settle()

  def add(self, row: Row) -> None:
    """Writes a row, now or as soon as the disk can be written."""
    self._unwritten += json.dumps(row).encode() + b'\n'
    with contextlib.suppress(OSError):
      self.settle()

  def settle(self) -> None:
    """Writes all waiting rows; returns when they are on disk.

    Raises:
      OSError: they cannot be written, and go on waiting.
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
  """Returns the last round in a file of rows; 0 if it has none.

  Raises:
    BadInput: the file cannot be read.
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
  """Parses a line; an incomplete or foreign line is a row of round 0."""
  try:
    row = json.loads(line) if line.endswith(b'\n') else {}
  except ValueError:  # of the text or of its encoding
    row = {}
  return row if isinstance(row, dict) and all(
      isinstance(row.get(name), kind) for name, kind in _NEEDED.items()
  ) else {'round': 0}


class Board:
  """TensorBoard's events; no more are written after the first failure."""

  def __init__(self, folder: pathlib.Path, done: int,
               say: Callable[[str], None]):
    """Creates a file of events.

    Args:
      folder: the folder of the files, one for each start.
      done: the completed rounds of the restored state. TensorBoard hides later
        rounds of earlier files.
      say: prints a line for the user.
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
    """Writes the numbers of a round by their names."""
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
    """Closes the file."""
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
