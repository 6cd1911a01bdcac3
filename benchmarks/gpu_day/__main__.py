"""Measures a rented GPU in two calls of a few minutes.

Here, with the network:

  python -m benchmarks.gpu_day prepare --data_dir=/path/of/tfds --jax=0.11.2

There, twice, with the tree and its folder .gpu_day:

  python3 -m benchmarks.gpu_day run --out=results --seconds=390

The second call goes on with what the first did not reach. If it is on another
machine, give it the results of the first as --before. docs/performance.md says
more.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

from benchmarks.gpu_day import commands
from benchmarks.gpu_day import day
from benchmarks.gpu_day import report
from benchmarks.gpu_day import results
from benchmarks.gpu_day import sizes
from benchmarks.gpu_day.budget import Budget
from benchmarks.gpu_day.budget import USUAL
from benchmarks.gpu_day.records import NAME
from benchmarks.gpu_day.records import Records

_END = 12.0  # seconds for the report and for copies, at most a tenth
# After the first call, the paper's run gets the rest of a call.
_MEASURING = 0.35


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
      prog='benchmarks.gpu_day', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  both = argparse.ArgumentParser(add_help=False)
  both.add_argument('--folder', default='.gpu_day', type=pathlib.Path,
                    help='what travels: wheels and data')
  verbs = parser.add_subparsers(dest='verb', required=True)
  prepare = verbs.add_parser('prepare', parents=[both])
  prepare.add_argument('--data_dir', required=True, help="TFDS's root")
  prepare.add_argument('--jax', default='0.11.2', help='its version there')
  prepare.add_argument('--there', default='', help='a file with the packages '
                       'of the machine, which are not carried')
  run = verbs.add_parser('run', parents=[both])
  run.add_argument('--out', required=True, type=pathlib.Path)
  run.add_argument('--seconds', default=USUAL, type=float)
  run.add_argument('--work', type=pathlib.Path, default=pathlib.Path(
      tempfile.gettempdir(), 'gpu_day'), help='for large files')
  run.add_argument('--before', type=pathlib.Path, help='the results of the '
                   'first call, if --work is lost')
  run.add_argument('--only', default='', help='stages, joined by commas')
  run.add_argument('--rehearse', action='store_true', help='tiny, on the CPU')
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
  """Prepares what travels, or runs a call."""
  args = _parse(argv)
  if args.verb == 'prepare':
    from benchmarks.gpu_day import packing
    print(packing.prepare(args.folder, args.data_dir, jax=args.jax,
                          there=args.there))
  else:
    _run(args)


def _run(args: argparse.Namespace) -> None:
  """Runs a call; its report is written whatever happens."""
  day.stop_on_signal()
  budget = Budget(args.seconds - min(_END, args.seconds / 10))
  args.out, args.work = args.out.absolute(), args.work.absolute()
  for folder in (args.out, args.work):
    folder.mkdir(parents=True, exist_ok=True)
  records = Records(args.out / NAME)
  before = [args.work / 'last', *([args.before] if args.before else [])]
  records.take(before)
  results.unpack_cache(args.work, before)
  if records.calls():
    budget = Budget(budget.seconds, measuring=_MEASURING)
  records.add('call', number=records.calls() + 1, seconds=args.seconds,
              rehearsal=args.rehearse)
  try:
    with open(args.out / 'log.txt', 'a') as log:
      _stages(args, records, budget, log)
  finally:
    made = report.text(records)
    (args.out / 'report.txt').write_text(made)
    print(made, flush=True)
    results.keep(args.out, args.work)


def _stages(args: argparse.Namespace, records: Records, budget: Budget,
            log) -> None:
  """Installs the wheels, decodes the data, and runs the stages."""
  size = sizes.TINY if args.rehearse else sizes.REAL
  site = _install(args.folder, args.work, log)
  env = day.environment(args.work, site, args.rehearse)
  setting = commands.Setting(day.ROOT, args.out, args.work, size, env, log,
                             budget.seconds)
  unpacking = []
  if not (args.work / 'cifar10.npz').exists():
    unpacking.append(setting.start(
        'benchmarks.gpu_day.data', str((args.folder / 'cifar10.xz').absolute()),
        str(args.work / 'cifar10.npz'), str(size.images)))
  worker = day.Worker(
      dict(records=str(records.path), out=str(args.out), work=str(args.work),
           rehearse=args.rehearse, seconds=budget.seconds), log, env)
  only = list(filter(None, args.only.split(',')))
  try:
    today = day.Day(records, budget, worker, setting)
    today.measure(only)
    today.train(only)
  finally:
    worker.close()
    for process in unpacking:
      commands.end(process)


def _install(folder: pathlib.Path, work: pathlib.Path,
             log) -> pathlib.Path | None:
  """Installs the carried wheels in a folder; None if there are none."""
  wheels = sorted((folder / 'wheels').glob('*.whl'))
  site = work / 'site'
  if wheels and not site.exists():
    part = work / f'site.{os.getpid()}'
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index',
         '--no-deps', '--no-compile', '--no-cache-dir', '--target', str(part),
         *map(str, wheels)], check=True, stdout=log, stderr=log)
    part.rename(site)
  return site if wheels else None


if __name__ == '__main__':
  main()
