"""Random numbers that a seed decides, whatever JAX is set to elsewhere."""

from collections.abc import Iterator
import contextlib

import jax


@contextlib.contextmanager
def fixed() -> Iterator[None]:
  """Draws as all runs do: by Threefry, in its partitionable form.

  JAX takes another generator from JAX_DEFAULT_PRNG_IMPL, or Threefry's older
  form from JAX_THREEFRY_PARTITIONABLE, as users set them for other programs.
  The same seed would then draw other numbers, and a run that goes on would do
  so by another generator. Of 'rbg', numbers also depend on how many seeds or
  devices share a program.
  """
  with jax.default_prng_impl('threefry2x32'), jax.threefry_partitionable(True):
    yield
