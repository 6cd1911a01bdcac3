"""What `fedu_jax.plan --chip` prints, with a compiler made up."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Runs the command with a compiler of four clients of two steps of 32 images.
SCRIPT = '''
import runpy, sys
from fedu_jax.plan import chip_process
from fedu_jax.plan.program_counts import Collective, Loop, ProgramCounts, Work
COUNTS = ProgramCounts(
    (Loop('step', 2, 8, Work(400, 10**9, 5, 10**6), 1, 7000, 9),),
    Work(70, 10**8), (Collective('all-reduce', 1, 5000),), 1, ('told',), 9, 8)
def compile_round(chip, flags, *, hlo, unknown_trips):
  assert '--config.clients=4' in flags and unknown_trips == 2
  if {refused}:
    raise chip_process.DoesNotFit('Used 20G of 15.75G hbm')
  return chip_process.CompiledRound(COUNTS, 10**9, 1, 2, 61.2, '')
chip_process.compile_round = compile_round
chip_process.missing = lambda compiler: ''
runpy.run_module('fedu_jax.plan', run_name='__main__', alter_sys=False)
'''


def ask(tmp_path, *flags, refused=False):
  done = subprocess.run(
      [sys.executable, '-c', SCRIPT.format(refused=refused),
       '--config=configs/smoke.py', '--config.clients=4', *flags],
      cwd=ROOT, text=True, capture_output=True, check=False, timeout=300,
      env=os.environ | {'TMPDIR': str(tmp_path), 'COLUMNS': '200'})
  assert done.returncode == 0, done.stderr
  return ' '.join(done.stdout.split())


def test_it_prints_the_compilers_figures_and_a_model(tmp_path):
  found = ask(tmp_path, '--chip=h100')
  for words in ('takes 1 GB of its memory', 'a step 8 400 1 GB 5 1 MB',
                'all-reduce, 1 times, 5 kB', 'within the program: told',
                'conditionals in a step: 1', 'a model of the time, not a meas',
                'a step of 32 images', 'bound by launches of kernels',
                'Nothing was timed', 'breaks first: no memory',
                # 8 turns of 405 launches or 1.001 GB, and 70 launches.
                'a round: 6.62 ms to'):
    assert words in found, (words, found)


@pytest.mark.parametrize('chip, refused, words', [
    ('v5e', True, 'Used 20G of 15.75G hbm'),
    (None, False, 'was not compiled')])
def test_what_does_not_fit_is_said_with_what_would(tmp_path, chip, refused,
                                                   words):
  """By the chip's compiler, or, on a chip of little memory, by a formula."""
  if not chip:
    text = (ROOT / 'fedu_jax/plan/chips/v5e.toml').read_text()
    chip = tmp_path / 'own.toml'
    chip.write_text(text.replace('16911433728', '20000'))
  found = ask(tmp_path, f'--chip={chip}', refused=refused)
  for word in (words, 'breaks first: memory of a device', 'to make it fit: ',
               'config.clients_per_device below 4, with config.store host'):
    assert word in found, (word, found)
