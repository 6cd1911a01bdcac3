"""Attacks that mount file systems, in a namespace, as `disk` starts them.

  unshare -rm python -m tests.faults.mounts <folder> <short or long> <rows>
"""

import json
import pathlib
import subprocess
import sys

from tests.faults import disk
from tests.faults import forks

_SIZE = 3_000_000  # bytes, of a disk


def _call(*command: object) -> None:
  subprocess.run(list(map(str, command)), check=True)


def _full(server, folder, name, stays) -> str:
  """Fills a small disk in the middle of a run."""
  place = folder / name
  place.mkdir()
  _call('mount', '-t', 'tmpfs', '-o', f'size={_SIZE}', 'tmpfs', place)

  def fill(started, workdir):
    with open(place / 'ballast', 'wb', buffering=0) as file:
      try:
        while file.write(bytes(1000)):
          pass
      except OSError:
        pass

  def free(started, workdir):
    (place / 'ballast').unlink()
  return disk.taken_away(server, folder, name, 'disk', stays, fill, free)


def _read_only(server, folder, name, stays) -> str:
  """Makes the folder of a run read-only."""
  def close(started, workdir):
    _call('mount', '--bind', workdir, workdir)
    _call('mount', '-o', 'remount,ro,bind', workdir)

  def open_(started, workdir):
    _call('umount', '-l', workdir)
  return disk.taken_away(server, folder, name, 'host', stays, close, open_)


def main() -> None:
  """Prints what was wrong, by row, as JSON."""
  folder, short = pathlib.Path(sys.argv[1]) / 'mounted', sys.argv[2] == 'short'
  folder.mkdir()
  _call('mount', '-t', 'tmpfs', 'tmpfs', folder)  # may we?
  with forks.of_runs() as server:
    print(json.dumps({
        row: [attack(server, folder, f'{attack.__name__}{i}', stays)
              for i, stays in enumerate(some)]
        for row, attack, some in (
            ('a full disk', _full, [False] if short else [False, True] * 4),
            ('a read-only disk', _read_only,
             [True] if short else [False, True] * 4))
        if row in sys.argv[3:]}))


if __name__ == '__main__':
  main()
