"""The installed package works in a folder that is no checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from fedu_jax import configs

pytest.importorskip('setuptools', '77')
ROOT = pathlib.Path(__file__).parents[1]
OWN = """from configs import cifar10
from configs import smoke
def get_config():
  config = smoke.get_config()
  config.rounds = 1
  config.seed = cifar10.get_config().seed + 7
  return config
"""


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """Starts a module of the wheel's package in another folder."""
  folder = tmp_path_factory.mktemp('wheel')
  tree = folder / 'tree'
  for name in ('fedu_jax', 'configs'):
    shutil.copytree(ROOT / name, tree / name,
                    ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, tree)
  made = subprocess.run(
      [sys.executable, '-m', 'pip', 'wheel', tree, '-q', '--no-deps',
       '--no-build-isolation', '-w', folder], text=True, check=False,
      capture_output=True)
  assert made.returncode == 0, made.stderr
  wheel, = folder.glob('*.whl')
  with zipfile.ZipFile(wheel) as file:
    file.extractall(folder / 'site')
  shutil.rmtree(tree)
  (folder / 'else').mkdir()
  (folder / 'else' / 'own.py').write_text(OWN)

  def run(module, *flags):
    done = subprocess.run(
        [sys.executable, '-P', '-m', module, *flags], cwd=folder / 'else',
        text=True, capture_output=True, check=False, timeout=300,
        env=os.environ | {'PYTHONPATH': str(folder / 'site')})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
  run.site = folder / 'site'
  return run


def test_it_brings_what_it_needs_and_nothing_else(start):
  """All modules, configs, templates and py.typed; no other package."""
  assert {x.name for x in start.site.iterdir() if x.suffix != '.dist-info'} == {
      'fedu_jax'}
  def names(folder):
    return {x.relative_to(folder) for x in folder.rglob('*')
            if x.suffix in ('.py', '.jinja', '.typed', '.toml')}
  shipped = pathlib.Path('configs')
  assert names(start.site / 'fedu_jax') == names(ROOT / 'fedu_jax') | {
      shipped / f'{name}.py' for name in configs.names()}


def test_a_run_by_a_config_of_ones_own(start):
  """The config imports `configs`, and the run is scored."""
  assert 'federation' in start('fedu_jax.main', '--config=own.py',
                               '--workdir=run')
  assert 'knn' in start('fedu_jax.evaluate', '--workdir=run', '--protocol=knn')


def test_a_run_by_a_shipped_config(start):
  assert 'federation' in start('fedu_jax.main', '--config=smoke',
                               '--config.rounds=1', '--workdir=shipped')


def test_a_checkouts_config_and_the_other_commands(start):
  for config in (ROOT / 'configs' / 'smoke.py', 'configs/smoke.py'):
    assert 'breaks first' in start(
        'fedu_jax.plan', f'--config={config}', '--rate=1e9')
  assert 'predictor' in start('fedu_jax.experiments', '--list')


def test_a_users_types_are_checked(start, tmp_path):
  """With py.typed, mypy reads the annotations of the installed package."""
  script, settings = tmp_path / 'use.py', tmp_path / 'mypy.ini'
  script.write_text('from fedu_jax.core.state import Variables\n'
                    'Variables(parameters={})\n')
  settings.write_text(f'[mypy]\ncache_dir = {tmp_path}\n'
                      # What we import is not looked at, which takes minutes.
                      '[mypy-jax.*,flax.*,optax.*,numpy.*,PIL.*,sklearn.*]\n'
                      'follow_imports = skip\n')
  done = subprocess.run(
      [sys.executable, '-P', '-m', 'mypy', '--config-file', settings, script],
      cwd=tmp_path, text=True, capture_output=True, check=False, timeout=300,
      env=os.environ | {'PYTHONPATH': str(start.site)})
  assert 'Unexpected keyword argument "parameters" for "Variables"' in (
      done.stdout), done.stdout + done.stderr
