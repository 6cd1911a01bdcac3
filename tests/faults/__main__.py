"""Attacks the program and prints what was tried and what was lost.

  python -m tests.faults                   # all, the long form
  python -m tests.faults --short           # minutes
  python -m tests.faults --only=kill,disk
  python -m tests.faults --broken          # each row, on a broken build

An attack that loses nothing might be too weak. So each row names a fault in our
code that it must notice: `--broken` puts that fault into a copy of the tree and
runs the row there, where it must lose.
"""

import argparse
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from fedu_jax.runtime import cli
from tests.faults import attack

MODULES = ('kill', 'disk', 'identity', 'numbers', 'data', 'config', 'same',
           'soak')


def main() -> None:
  """Runs the chosen rows; exits with code 1 if anything was lost."""
  flags = argparse.ArgumentParser(
      description=(__doc__ or '').splitlines()[0])
  flags.add_argument('--only', default='', help=f'some of {", ".join(MODULES)}')
  flags.add_argument('--short', action='store_true', help='the form of CI')
  flags.add_argument('--broken', action='store_true',
                     help='see each row fail on its broken build')
  flags.add_argument('--rows', default='', help='only these')
  flags.add_argument('--seed', type=int, default=0)
  flags.add_argument('--json', default='', help='a file for the outcomes')
  args = flags.parse_args()
  names = args.only.split(',') if args.only else MODULES
  if unknown := set(names) - set(MODULES):
    flags.error(f'--only: there is no {", ".join(sorted(unknown))}')
  modules = {name: importlib.import_module(f'tests.faults.{name}')
             for name in names}
  rows = frozenset(args.rows.split(',') if args.rows else ())
  if absent := rows - {row for x in modules.values() for row in x.BROKEN}:
    flags.error(f'--rows: there is no {", ".join(sorted(absent))}')
  cli.keep_compiled_programs()  # most attacks are on the same few
  if args.broken:
    sys.exit(_broken(modules, args, rows))
  found: dict[str, dict[str, Any]] = {}
  for name, module in modules.items():
    began = time.time()
    with tempfile.TemporaryDirectory(prefix='faults-') as folder:
      outcomes = module.run(attack.Order(
          pathlib.Path(folder), args.short, args.seed,
          lambda text: print(f'  {text}', file=sys.stderr, flush=True),
          rows))
    for row, outcome in outcomes.items():
      found[row] = outcome._asdict() | {'module': name}
    print(f'{name}: {time.time() - began:.0f} s', file=sys.stderr, flush=True)
  print('| attack | tried | survived | lost | |\n|---|---|---|---|---|')
  for row, x in found.items():
    print(f"| {row} | {x['tried']} | {x['tried'] - x['lost']} | {x['lost']} | "
          f"{x['note']} |")
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(found, indent=2) + '\n')
  sys.exit(any(x['lost'] or not (x['tried'] or x['note'].startswith('skipped'))
               for x in found.values()))


def _broken(modules, args, rows: frozenset[str]) -> int:
  """Runs each row on its broken build; how many went unnoticed, as a code."""
  unnoticed = 0
  print('| attack | fault put into | noticed |\n|---|---|---|')
  for name, module in modules.items():
    for row, fault in module.BROKEN.items():
      if rows and row not in rows:
        continue
      with tempfile.TemporaryDirectory(prefix='broken-') as place:
        tree = pathlib.Path(place) / 'tree'
        shutil.copytree(attack.ROOT, tree, ignore=shutil.ignore_patterns(
            '.git', '.venv', 'results', '__pycache__', '*.egg-info'))
        path = tree / fault.file
        text = path.read_text()
        path.write_text(text.replace(fault.old, fault.new))
        report = pathlib.Path(place) / 'outcomes.json'
        done = subprocess.run(
            [sys.executable, '-m', 'tests.faults', '--short',
             f'--only={name}', f'--rows={row}', f'--seed={args.seed}',
             f'--json={report}'],
            cwd=tree, text=True, check=False, capture_output=True,
            env={**os.environ, 'PYTHONPATH': str(tree)})
        outcomes = json.loads(report.read_text()) if report.exists() else {}
        noticed = bool(outcomes.get(row, {}).get('lost'))
        if not outcomes:
          print(done.stderr[-2000:], file=sys.stderr)
      unnoticed += not noticed
      print(f'| {row} | {fault.file} | {"yes" if noticed else "NO"} |',
            flush=True)
  return min(unnoticed, 1)


if __name__ == '__main__':
  main()
