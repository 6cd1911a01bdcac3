"""Settings of all tests: strict checks, and a compilation cache of their own.
"""

from importlib import metadata
import os
import shutil
import tempfile

# Set before JAX is imported, for this process and those that tests start. All
# processes of a session share one cache of compiled programs, because several
# tests run the same config. Pytest's first process sets it before it starts
# others.
os.environ['JAX_PLATFORMS'] = 'cpu'
if 'PYTEST_XDIST_WORKER' not in os.environ:
  os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='fedu_jax-')
# Most of the time is spent compiling programs that run for a second. Without
# optimisation the whole takes a quarter less. The older emitter of fusions,
# which later versions lack, halves the rest. One piece compiles faster than 32.
# The smallest programs are cached too: a start of `fedu_jax.main` compiles 160
# of them, and takes a seventh less CPU time when it finds them.
os.environ['XLA_FLAGS'] = (
    '--xla_backend_optimization_level=0 '
    '--xla_cpu_parallel_codegen_split_count=1' + (
        ' --xla_cpu_use_fusion_emitters=false'
        if metadata.version('jaxlib').startswith('0.10.') else ''))
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

import jax
import pytest

jax.config.update('jax_compilation_cache_dir', os.path.join(
    os.environ['XDG_CACHE_HOME'], 'fedu_jax', 'compiled'))
jax.config.update('jax_numpy_rank_promotion', 'raise')


# The long files, the longest first: started last, one would keep one process
# busy while the others wait.
_LONG = ('numbers_test', 'device_mesh_test', 'experiments_test', 'train_test',
         'walkthrough_test',
         'chip_test',
         'kill_test', 'benchmarks_test', 'multihost_test', 'checkpoint_test',
         'steps_parity_test', 'rounds_parity_test', 'plan_test', 'laws_test',
         'methods_test', 'client_store_test', 'config_test', 'data_test')


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
