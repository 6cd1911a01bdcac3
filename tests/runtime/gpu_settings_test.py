"""Settings of GPUs: they come before JAX starts, and reach every program."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from fedu_jax.runtime import gpu_settings
from fedu_jax.runtime.errors import BadInput

COMPILED = '''
import jax
from fedu_jax.runtime import gpu_settings
gpu_settings.make_deterministic()
jax.jit(lambda x: x + 1)(1.0)
print(gpu_settings.see_deterministic())
'''


def test_the_deterministic_option_reaches_every_program(tmp_path):
  """JAX's own small programs too: XLA writes down what each compiled with."""
  done = subprocess.run(
      [sys.executable, '-c', COMPILED], text=True, capture_output=True,
      check=False, cwd=pathlib.Path(__file__).parents[2], timeout=120,
      env=os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false', 'XLA_FLAGS':
                        f'{os.environ["XLA_FLAGS"]} --xla_dump_to={tmp_path}'})
  assert done.stdout == 'config.deterministic changes nothing on a CPU\n', done
  options = [path.read_text() for path in tmp_path.glob('*.debug_options')]
  assert options
  for text in options:
    assert 'xla_gpu_deterministic_ops: true' in text


def test_a_gpu_that_started_without_the_option_is_refused(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  env = {}
  gpu_settings.make_deterministic(env)  # too late, this process has devices
  assert env == {}
  with pytest.raises(BadInput, match='set XLA_FLAGS=--xla_gpu_determ'):
    gpu_settings.see_deterministic(env)
  monkeypatch.setattr(gpu_settings.private_apis, 'backends_are_initialized',
                      lambda: False)
  env['XLA_FLAGS'] = '--xla_dump_to=x'
  for _ in range(2):
    gpu_settings.make_deterministic(env)
    assert env['XLA_FLAGS'] == (
        '--xla_dump_to=x --xla_gpu_deterministic_ops=true')
  assert 'excluded' in gpu_settings.see_deterministic(env)


def test_processes_share_a_gpu_unless_the_user_says_how(tmp_path):
  env = {}
  assert gpu_settings.share(env, root=tmp_path) == '' and env == {}
  (tmp_path / 'dev').mkdir()
  (tmp_path / 'dev/nvidia0').touch()
  assert 'several processes can work on this queue' in gpu_settings.share(
      env, root=tmp_path)
  assert env == {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  env = {'XLA_CLIENT_MEM_FRACTION': '.4'}
  assert gpu_settings.share(env, root=tmp_path) == ''
  assert env == {'XLA_CLIENT_MEM_FRACTION': '.4'}
