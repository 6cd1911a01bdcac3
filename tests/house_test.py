"""Lint and types really run, with the settings in setup.cfg."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize('command', [
    ['flake8', 'fedu_jax', 'configs', 'benchmarks', 'tests'], ['mypy']])
def test_house(command):
  done = subprocess.run([sys.executable, '-m', *command], cwd=ROOT, text=True,
                        capture_output=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
