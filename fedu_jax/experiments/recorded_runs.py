"""One file with all runs of an experiment, to draw its tables again.

An experiment writes `runs.jsonl.gz` next to its tables. The first line names
the experiment. Each other line is one run:

  {"run": "<name of its folder>",
   "files": {"config.json": {...}, "metrics.jsonl": [{...}, ...], ...}}

So a table is published with all its numbers. Checkpoints and logs stay in the
workdir.
"""

from collections.abc import Mapping
import gzip
import json
import pathlib
import re
from typing import Any, NamedTuple
import zlib

from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput

FILE = 'runs.jsonl.gz'
_ROUNDS = 'metrics.jsonl'
_FILES = ('config.json', 'evaluation.json', 'images.json', 'partition.json',
          'summary.json', 'tsne-*.json')


class Recorded(NamedTuple):
  """The contents of such a file."""
  about: dict[str, Any]  # the experiment: its title, scale and seeds
  runs: dict[str, dict[str, Any]]  # a run's name -> a file's name -> its value


def write(path: pathlib.Path, about: dict[str, Any],
          folders: Mapping[str, pathlib.Path], *, layers: bool) -> None:
  """Writes the runs of an experiment into one file.

  The same runs give the same bytes.

  Args:
    path: the file.
    about: the first line.
    folders: the folders of the runs, by the runs' names.
    layers: whether to keep the divergences of layers, which are two thirds of
      the numbers. Those of clients are always kept.

  Raises:
    OSError: a run cannot be read, or the file cannot be written.
  """
  lines: list[dict[str, Any]] = [about]
  for name, folder in folders.items():
    files: dict[str, Any] = {
        file.name: json.loads(file.read_text())
        for pattern in _FILES for file in sorted(folder.glob(pattern))}
    rows = map(json.loads, (folder / _ROUNDS).read_text().splitlines())
    files[_ROUNDS] = [row if layers else _without_layers(row) for row in rows]
    lines.append({'run': name, 'files': files})
  text = ''.join(json.dumps(line, separators=(',', ':')) + '\n'
                 for line in lines)
  durable_files.write(path, gzip.compress(text.encode(), mtime=0))


def _without_layers(row: dict[str, Any]) -> dict[str, Any]:
  """A round's numbers without those of layers."""
  clients = row.get('clients', {})
  return row | {'clients': {
      name: clients[name] for name in clients if '/' not in name}}


def read(path: pathlib.Path) -> Recorded:
  """Reads a file of `write`.

  Raises:
    BadInput: the file is missing or damaged.
  """
  try:
    with gzip.open(path, 'rt', encoding='utf-8') as file:
      about, *lines = map(json.loads, file)
    runs = {line['run']: dict(line['files']) for line in lines}
    for name in [*runs, *(name for files in runs.values() for name in files)]:
      if not re.fullmatch(r'\w[\w.-]*', name):
        raise ValueError(f'{name!r} is no name of a run or a file')
    return Recorded(dict(about), runs)
  except FileNotFoundError as error:
    raise BadInput(f'there is no {path}, which an experiment writes when it is '
                   'finished') from error
  except (OSError, EOFError, ValueError, TypeError, KeyError,
          zlib.error) as error:
    raise BadInput(f'{path} is damaged ({error}): get the file again'
                   ) from error


def unpack(recorded: Recorded, folder: pathlib.Path) -> None:
  """Writes the files of each run into a folder of its own, as a run does."""
  for run, files in recorded.runs.items():
    (folder / run).mkdir(parents=True)
    for name, value in files.items():
      rows = value if name == _ROUNDS else [value]
      (folder / run / name).write_text(
          ''.join(json.dumps(row) + '\n' for row in rows))
