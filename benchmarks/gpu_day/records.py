"""The records of the day: one JSON object a line, written as it goes.

A line is on disk when `add` returns, so a cut loses the stage in progress and
nothing else. A later call begins with the lines of the earlier ones.
"""

from collections.abc import Iterable
import json
import os
import pathlib
import time
from typing import Any

Record = dict[str, Any]

NAME = 'results.jsonl'


class Records:
  """The records in one file; several processes may add to it."""

  def __init__(self, path: pathlib.Path, stage: str = ''):
    """Opens a file of records.

    Args:
      path: the file, which need not exist.
      stage: the stage that `add` writes for.
    """
    self.path, self.stage = path, stage

  def add(self, kind: str, **fields: Any) -> None:
    """Appends a record, and waits until it is on disk.

    Args:
      kind: 'call', 'begin', 'row', 'end', 'cut', 'failed' or 'skipped'.
      **fields: what it says.
    """
    record = {'time': round(time.time(), 2), 'stage': self.stage,
              'kind': kind} | fields
    with open(self.path, 'a', encoding='utf-8') as file:
      file.write(json.dumps(record) + '\n')
      file.flush()
      os.fsync(file.fileno())

  def of(self, stage: str) -> 'Records':
    """Returns the same file, for another stage."""
    return Records(self.path, stage)

  def read(self) -> list[Record]:
    """Returns all whole records; a line that was cut short is left out."""
    found = []
    if self.path.exists():
      for line in self.path.read_text(encoding='utf-8').splitlines():
        try:
          found.append(json.loads(line))
        except ValueError:
          continue
    return found

  def rows(self, stage: str) -> list[Record]:
    """Returns the rows of a stage; of those with one name, the last."""
    found: dict[str, Record] = {}
    for record in self.read():
      if record['kind'] == 'row' and record['stage'] == stage:
        found[record.get('name', str(len(found)))] = record
    return list(found.values())

  def row(self, stage: str, name: str) -> Record:
    """Returns the last row of a stage with a name; empty without one."""
    return next((x for x in self.rows(stage) if x.get('name') == name), {})

  def done(self, stage: str) -> bool:
    """Whether a stage has ended, in this call or an earlier one."""
    return any(x['kind'] == 'end' and x['stage'] == stage for x in self.read())

  def calls(self) -> int:
    """Returns the number of calls so far."""
    return sum(x['kind'] == 'call' for x in self.read())

  def take(self, folders: Iterable[pathlib.Path]) -> None:
    """Begins with the records of the first of these folders that has some."""
    if self.path.exists():
      return
    for folder in folders:
      if (folder / NAME).is_file():
        text = (folder / NAME).read_text(encoding='utf-8')
        self.path.write_text(text if text.endswith('\n') or not text
                             else text + '\n', encoding='utf-8')
        return
