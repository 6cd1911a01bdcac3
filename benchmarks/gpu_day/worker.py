"""The process that measures: it has JAX, and keeps it from stage to stage.

It reads a stage and its seconds from stdin, one JSON object a line, and answers
each with a line on stdout. Figures go to the records.
"""

import importlib
import json
import os
import pathlib
import sys
import time
import traceback
from typing import Any, NamedTuple

# Other processes need memory of the same GPU.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

from benchmarks.gpu_day import sizes as sizes_lib
from benchmarks.gpu_day.records import Records


class Work(NamedTuple):
  """What a stage is given.

  Attributes:
    records: the records, for the rows of this stage.
    out: the folder of results.
    work: the folder of large files.
    sizes: the sizes of all stages.
    deadline: the time by `time.time` at which the stage is cut.
    seconds: the limit of a whole call.
  """
  records: Records
  out: pathlib.Path
  work: pathlib.Path
  sizes: sizes_lib.Sizes
  deadline: float
  seconds: float

  def left(self) -> float:
    """Returns the seconds until the stage is cut."""
    return self.deadline - time.time()

  @property
  def data(self) -> pathlib.Path:
    """The decoded images."""
    return self.work / 'cifar10.npz'


def run(name: str, work: Work) -> str:
  """Runs a stage; returns '' or what went wrong, in one line."""
  try:
    module = importlib.import_module(f'benchmarks.gpu_day.stages.{name}')
    module.run(work)
  # A stage may raise any error, also SystemExit; the next ones shall run.
  except (Exception, SystemExit) as error:
    traceback.print_exc()
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:500]
  return ''


def main(argv: list[str]) -> None:
  """Answers requests until stdin ends."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # what libraries print goes to the log
  options = json.loads(argv[1])
  out, sizes = pathlib.Path(options['out']), (
      sizes_lib.TINY if options['rehearse'] else sizes_lib.REAL)
  for line in sys.stdin:
    asked: dict[str, Any] = json.loads(line)
    name = asked['stage']
    print(f'--- {name}', flush=True)
    wrong = run(name, Work(
        Records(pathlib.Path(options['records']), name), out,
        pathlib.Path(options['work']), sizes, time.time() + asked['seconds'],
        options['seconds']))
    print(json.dumps({'wrong': wrong}), file=answers, flush=True)


if __name__ == '__main__':
  main(sys.argv)
