"""Settings of all tests: strict checks, and a compilation cache of their own.
"""

from importlib import metadata
import os
import shutil
import tempfile

# Before JAX is imported, here and in the processes that tests start. Compiled
# programs are kept for one session, where `fedu_jax.main` keeps them, for all
# of pytest's processes, the first of which gets here before it starts others:
# several tests run the same config.
os.environ['JAX_PLATFORMS'] = 'cpu'
if 'PYTEST_XDIST_WORKER' not in os.environ:
  os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='fedu_jax-')
# Most of the time goes into compiling programs that run for a second: quickly
# made ones are the better bargain, a quarter off the whole. The older way to
# emit fusions, which later versions have no more, compiles in half of the rest;
# a program in one piece in less than in 32, which the cores need not share; and
# small programs are many, so they are kept as well.
os.environ['XLA_FLAGS'] = (
    '--xla_backend_optimization_level=0 '
    '--xla_cpu_parallel_codegen_split_count=1' + (
        ' --xla_cpu_use_fusion_emitters=false'
        if metadata.version('jaxlib').startswith('0.10.') else ''))
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

import jax
import pytest

jax.config.update('jax_compilation_cache_dir', os.path.join(
    os.environ['XDG_CACHE_HOME'], 'fedu_jax', 'compiled'))
jax.config.update('jax_numpy_rank_promotion', 'raise')


# The long files, longest first: begun last, one would keep a process busy when
# the others have nothing left to do.
_LONG = ('numbers_test', 'device_mesh_test', 'experiments_test', 'train_test',
         'kill_test', 'benchmarks_test', 'multihost_test', 'checkpoint_test',
         'steps_parity_test', 'rounds_parity_test', 'plan_test', 'laws_test',
         'methods_test', 'client_store_test')


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: _LONG.index(item.path.stem)
             if item.path.stem in _LONG else len(_LONG))


def pytest_unconfigure(config):
  if not hasattr(config, 'workerinput'):  # the first process, which ends last
    shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


@pytest.fixture(autouse=True)
def strict():
  """Fails a test that changes a global setting for the next one."""
  before = jax.config.jax_enable_x64
  yield
  assert jax.config.jax_enable_x64 == before
