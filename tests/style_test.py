"""Lint and types really run, with the settings of pyproject.toml."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = [['ruff', 'check'], ['mypy']]


@pytest.mark.parametrize('command', COMMANDS)
def test_style(command):
  done = subprocess.run([sys.executable, '-m', *command], cwd=ROOT, text=True,
                        capture_output=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('code, found', [
    ('def double(x):\n  """Doubles it."""\n  return 2 * x\n', ''),
    ('double = lambda x: 2 * x\n', ''),
    ('import os\n', 'F401'),
    ('import sys\n\nimport os\n\nos, sys\n', 'I001'),
    ('from . import trees as trees\n', 'TID252'),
    ('def double(x):\n  return 2 * x\n', 'D103'),
    ('def double(x):\n  """Doubles.\n\n  Args:\n    y: it.\n  """\n', 'D417'),
    ('x = 1\n\ndef double():\n  """Doubles it."""\n', 'E302'),
    ('x = (1,2)\n', 'E231'),
    ('x=1\n', 'E225'),
    (f'x = {"1" * 77}\n', 'E501'),
    ('x = 1  # noqa: E731\n', 'RUF100')])
def test_what_lint_refuses(code, found):
  """Two spaces of indent and small named functions pass; others do not."""
  done = subprocess.run(
      [sys.executable, '-m', 'ruff', 'check', '--output-format=json',
       '--stdin-filename=fedu_jax/core/own.py', '-'], cwd=ROOT, text=True,
      input=f'"""Own."""\n\n\n{code}', capture_output=True, check=False)
  codes = set(re.findall(r'"code": "(\w+)"', done.stdout))
  assert codes == ({found} if found else set()), done.stdout + done.stderr


@pytest.mark.parametrize('file, pattern', [
    ('.pre-commit-config.yaml', r'entry: python -m (.*)'),
    ('CONTRIBUTING.md', r'^python -m (ruff.*|mypy.*)')])
def test_others_run_the_same(file, pattern):
  """The pre-commit hook and the documented commands."""
  found = re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
  assert [command.split() for command in found] == COMMANDS


def test_strangers_see_what_ci_runs():
  assert '- run: .ci/run\n' in (
      ROOT / '.github' / 'workflows' / 'ci.yml').read_text()
