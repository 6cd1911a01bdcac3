"""Counts rounds by the compilers of chips that need not be here.

  python -m benchmarks.chip_bench --chips=h100,v5e --executions=map,vmap
  python -m benchmarks.chip_bench --quick

Each cell is a method, an execution, a dtype and a chip. Its round is compiled
in a process of its own, from configs/methods.py. A JSON line is
printed as soon as a cell is done: kernels and bytes of a step and of the rest
of the round, copies, collectives, peak memory, seconds of the compiler. Bytes
are all operands and results of kernels. Nothing is timed on a chip.

With --out, cells that the file has already are not compiled again.
"""

import argparse
import itertools
import json
import pathlib
import sys
from typing import Any

import jax

from fedu_jax.plan import chip_files
from fedu_jax.plan import chip_process
from fedu_jax.runtime.errors import BadInput

_QUICK = ('model.name=resnet6', 'model.width=4', 'model.hidden=32',
          'model.features=16', 'batch_size=8', 'data.image_size=8',
          'data.max_examples=160')
_COLUMNS = ('chip', 'method', 'execution', 'dtype')


def main(argv: list[str] | None = None) -> None:
  """Compiles and counts each cell; prints JSON lines, then a table."""
  flags = argparse.ArgumentParser(
      description=(__doc__ or '').splitlines()[0],
      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
  flags.add_argument('--chips', default='h100', help='names or files')
  flags.add_argument('--methods', default='fedu',
                     help='as in configs/methods.py')
  flags.add_argument('--executions', default='map,vmap')
  flags.add_argument('--dtypes', default='bfloat16,float32')
  flags.add_argument('--count', type=int, default=1, help='chips of a cell')
  flags.add_argument('--set', action='append', default=[],
                     metavar='FIELD=VALUE', help='a field of the config')
  flags.add_argument('--out', default='', help='a file for the JSON lines')
  flags.add_argument('--quick', action='store_true',
                     help='a tiny network, to see that everything runs')
  args = flags.parse_args(argv)
  fields = [*(_QUICK if args.quick else ()), *args.set]
  out = pathlib.Path(args.out) if args.out else None
  rows = []
  done = _read(out)
  for cell in itertools.product(*(
      value.split(',') for value in (args.chips, args.methods, args.executions,
                                     args.dtypes))):
    row = dict(zip(_COLUMNS, cell), count=args.count, fields=fields,
               jax=jax.__version__)
    found = next((x for x in done if row.items() <= x.items()), None)
    if not found:
      found = row | _count(row)
      line = json.dumps(found)
      print(line, flush=True)
      if out:
        with out.open('a') as file:
          file.write(line + '\n')
    rows.append(found)
  print(table(rows))


def _read(out: pathlib.Path | None) -> list[dict[str, Any]]:
  """Reads the cells of an earlier start that were compiled."""
  lines = out.read_text().splitlines() if out and out.exists() else []
  return [row for row in map(json.loads, lines) if 'failed' not in row]


def _count(row: dict[str, Any]) -> dict[str, Any]:
  """Compiles a cell in a process of its own, and counts it."""
  try:
    found = chip_process.compile_round(chip_files.load(row['chip']), [
        f'--config=methods:{row["method"]}', f'--chip={row["chip"]}',
        f'--chips={row["count"]}', f'--config.execution={row["execution"]}',
        f'--config.model.dtype={row["dtype"]}',
        *(f'--config.{field}' for field in row['fields'])])
  except (BadInput, chip_process.DoesNotFit) as failure:
    print(f'{row}: {failure}', file=sys.stderr)
    return {'failed': str(failure)}
  counts = found.counts
  step = counts.step
  return {
      'step': step and step.work._asdict(), 'turns': step and step.turns,
      'conditionals': step and step.conditionals,
      'carry_copied': step and step.carry_copied,
      'rest': counts.rest._asdict(),
      'collectives': [x._asdict() for x in counts.collectives],
      'host_transfers': len(counts.host_transfers),
      'donated': counts.donated, 'arguments': counts.arguments,
      'peak': found.peak, 'temporary': found.temporary,
      'seconds': round(found.seconds, 1)}


def table(rows: list[dict[str, Any]]) -> str:
  """Makes a Markdown table of cells."""
  lines = ['| chip | method | execution | dtype | a step: kernels | GB | '
           'copies, GB | the rest: kernels | GB | peak, GB | compiler, s |',
           '|---|---|---|---|---|---|---|---|---|---|---|']
  for row in rows:
    cells = [str(row[column]) for column in _COLUMNS]
    if 'failed' in row:
      lines.append(f'| {" | ".join(cells)} | {row["failed"]} |')
      continue
    step, rest = row['step'] or dict.fromkeys(
        ('kernels', 'bytes', 'copies', 'copied'), 0), row['rest']
    cells += [
        str(step['kernels']), f'{step["bytes"] / 1e9:.3f}',
        f'{step["copies"]}, {step["copied"] / 1e9:.3f}', str(rest['kernels']),
        f'{(rest["bytes"] + rest["copied"]) / 1e9:.3f}',
        f'{row["peak"] / 1e9:.2f}', f'{row["seconds"]:.0f}']
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
