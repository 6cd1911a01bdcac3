"""The journal of a decoding that may be killed and goes on at the next start.

Each line is one entry in JSON with a checksum. An entry is written when the
rows that it names are on disk. The lock of the journal is that of its decoding.
"""

import json
import os
import pathlib
from typing import Any

from fedu_jax.runtime import durable_files

Entry = dict[str, Any]


class Done:
  """What of a decoding is done.

  Attributes:
    files: the number of files that were looked at, in their order.
    skipped: file -> the reason why it was skipped.
    most: file -> its largest value, if its depth was unknown at first.
    notes: see `image_folders.Folders`.
    sums: the checksum of each row. A file that was not skipped has a row; the
      checksum is 0 until the file's depth is known.
    deep: the number of files of `most` that were decoded since.
    late: file -> the reason why it was skipped after it had got a row.
    moving: whether the rows of `late` are being closed up.
  """

  def __init__(self) -> None:
    self.files, self.deep, self.moving = 0, 0, False
    self.skipped: dict[int, str] = {}
    self.most: dict[int, int] = {}
    self.late: dict[int, str] = {}
    self.notes = [0, 0, 0]
    self.sums: list[int] = []

  def add(self, entry: Entry) -> None:
    """Adds an entry; an entry has some of the attributes, with what is new."""
    self.files += entry.get('files', 0)
    self.deep += entry.get('deep', 0)
    self.moving |= entry.get('moving', False)
    for name in ('skipped', 'most', 'late'):
      getattr(self, name).update(entry.get(name, []))
    self.notes = [x + y for x, y in zip(
        self.notes, entry.get('notes', [0, 0, 0]), strict=True)]
    self.sums += entry.get('sums', [])
    for row, value in entry.get('changed', []):
      self.sums[row] = value


class Journal:
  """A journal's file, which exists."""

  def __init__(self, path: pathlib.Path, about: Entry, lasting: bool):
    """Reads the journal.

    Args:
      path: the file.
      about: what is decoded. The entries of another decoding are dropped.
      lasting: whether to wait until an entry is on disk.
    """
    self._file = open(path, 'r+b', buffering=0)
    self._lasting = lasting
    self._ends = [0]  # of the lines
    self.entries: list[Entry] = []
    sound = list(self._sound())
    if sound[:1] == [about]:
      self.entries = sound[1:]
    else:
      self._cut(0)
      self.add(about)
      self.entries = []

  def _sound(self):
    """Yields the entries up to the first that is damaged."""
    for line in self._file.readall().splitlines(keepends=True):
      try:
        entry = json.loads(durable_files.checked(
            line.removesuffix(b'\n'), 'a line'))
      except (durable_files.Damaged, ValueError):
        return
      if not line.endswith(b'\n'):
        return
      self._ends.append(self._ends[-1] + len(line))
      yield entry

  def keep(self, count: int) -> None:
    """Drops all entries but the first `count`."""
    self.entries = self.entries[:count]
    self._cut(count + 1)

  def _cut(self, lines: int) -> None:
    self._ends = self._ends[:lines + 1]
    self._file.truncate(self._ends[-1])

  def add(self, entry: Entry) -> None:
    """Adds an entry.

    Raises:
      OSError: the disk is full, or fails.
    """
    line = durable_files.seal(json.dumps(entry).encode()) + b'\n'
    durable_files.write_at(self._file.fileno(), line, self._ends[-1])
    if self._lasting:
      os.fsync(self._file.fileno())
    self._ends.append(self._ends[-1] + len(line))
    self.entries.append(entry)

  def close(self) -> None:
    self._file.close()
