"""The benchmark that counts rounds by chip, with a compiler made up."""

import json

from benchmarks import chip_bench
from fedu_jax.plan import chip_process
from fedu_jax.plan.chip_process import CompiledRound
from fedu_jax.plan.program_counts import Loop
from fedu_jax.plan.program_counts import ProgramCounts
from fedu_jax.plan.program_counts import Work
from fedu_jax.runtime.errors import BadInput

COUNTS = ProgramCounts(
    (Loop('step', 2, 8, Work(30, 5 * 10**9, 4, 10**8), 1, 10**8, 9),),
    Work(7, 10**9), (), 1, (), 3, 2)


def test_cells_are_compiled_once_and_failures_again(
    monkeypatch, tmp_path, capsys):
  """With a file of cells; a cell that fails is a row all the same."""
  asked = []

  def compile_round(chip, flags):
    asked.append(flags)
    if '--config.execution=vmap' in flags:
      raise BadInput('no compiler')
    return CompiledRound(COUNTS, 6 * 10**9, 1, 2, 61.2, '')
  monkeypatch.setattr(chip_process, 'compile_round', compile_round)
  out = tmp_path / 'cells.jsonl'
  flags = ['--chips=h100', '--methods=fedsc', '--dtypes=float32',
           '--set=batch_size=8', f'--out={out}']
  chip_bench.main(flags)
  assert asked[0] == [
      '--config=methods:fedsc', '--chip=h100', '--chips=1',
      '--config.execution=map', '--config.model.dtype=float32',
      '--config.batch_size=8']
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert rows[0]['step']['kernels'] == 30 and rows[0]['turns'] == 8
  assert rows[1]['failed'] == 'no compiler'
  *_, mapped, failed = capsys.readouterr().out.splitlines()
  assert mapped == ('| h100 | fedsc | map | float32 | 30 | 5.000 | 4, 0.100 | '
                    '7 | 1.000 | 6.00 | 61 |')
  assert failed == '| h100 | fedsc | vmap | float32 | no compiler |'
  chip_bench.main(flags)
  assert [x[3] for x in asked[2:]] == ['--config.execution=vmap']
