"""What all tests share: strictness, two fake devices, a compilation cache."""

import os
import tempfile

# Before JAX is imported, here and in the processes that tests start. Compiled
# programs are kept for one session: several tests run the same config.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='fedu_jax-')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '1'

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True)
def strict():
  """A test that changes a global setting must not change it for the next."""
  before = jax.config.jax_enable_x64
  yield
  assert jax.config.jax_enable_x64 == before
