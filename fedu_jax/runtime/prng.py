"""The generator of random numbers, independent of the user's JAX settings."""

from collections.abc import Iterator
import contextlib

import jax


@contextlib.contextmanager
def fixed() -> Iterator[None]:
  """Sets the generator of all runs: Threefry, in its partitionable form.

  Users may set JAX_DEFAULT_PRNG_IMPL or JAX_THREEFRY_PARTITIONABLE for other
  programs. The same seed would then draw other numbers, and a resumed run could
  change its generator. With 'rbg', numbers also depend on how many seeds or
  devices share a program.
  """
  with jax.default_prng_impl('threefry2x32'), jax.threefry_partitionable(True):
    yield
