"""Lint and types really run, with the settings in setup.cfg."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = [['flake8', 'fedu_jax', 'configs', 'benchmarks', 'tests', 'docs'],
            ['mypy']]


@pytest.mark.parametrize('command', COMMANDS)
def test_house(command):
  done = subprocess.run([sys.executable, '-m', *command], cwd=ROOT, text=True,
                        capture_output=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('file, pattern', [
    ('.pre-commit-config.yaml', r'entry: python -m (.*)'),
    ('CONTRIBUTING.md', r'^python -m (flake8.*|mypy.*)')])
def test_others_run_the_same(file, pattern):
  """Before a commit, and by hand."""
  found = re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
  assert [command.split() for command in found] == COMMANDS


def test_strangers_see_what_ci_runs():
  assert '- run: .ci/run\n' in (
      ROOT / '.github' / 'workflows' / 'ci.yml').read_text()
