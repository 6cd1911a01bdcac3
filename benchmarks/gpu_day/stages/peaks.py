"""The rates that the device reaches: matrix products, and copies in memory."""

from collections.abc import Callable
import statistics
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gpu_day.worker import Work
from benchmarks.lib import timing

# Name -> dtype of the factors, precision of the product, products of a run.
_PRODUCTS: dict[str, tuple[str, str, int]] = {
    'bfloat16': ('bfloat16', 'default', 32),
    'tensorfloat32': ('float32', 'tensorfloat32', 16),
    'float32': ('float32', 'highest', 4)}
_COPIES = 8


def run(work: Work) -> None:
  """Writes a row for each kind of product, and one for copies."""
  side = work.sizes.matrix
  for name, (dtype, precision, times) in _PRODUCTS.items():
    seconds = _seconds(_products(side, dtype, precision, times), work)
    work.records.add('row', name=name, unit='FLOP/s', side=side, rates=[
        2.0 * side**3 * times / x for x in seconds], median=2.0 * side**3
        * times / statistics.median(seconds))
  size = work.sizes.copied
  seconds = _seconds(_copies(size), work)
  work.records.add('row', name='memory', unit='B/s', bytes=size, rates=[
      2.0 * size * _COPIES / x for x in seconds], median=2.0 * size * _COPIES
      / statistics.median(seconds))


def _seconds(run: Callable[[], Any], work: Work) -> list[float]:
  return timing.interleave({'it': run}, work.sizes.repetitions)['it']


def _products(side: int, dtype: str, precision: str, times: int
              ) -> Callable[[], Any]:
  """Returns a run of matrix products of random numbers."""
  a, b = (jax.random.normal(rng, (side, side), dtype)
          for rng in jax.random.split(jax.random.key(0)))
  b = b / side**0.5

  @jax.jit
  def products(a, b):
    return jax.lax.fori_loop(0, times, lambda _, x: jnp.matmul(
        x, b, precision=precision), a)
  return lambda: products(a, b)


def _copies(size: int) -> Callable[[], Any]:
  """Returns a run that reads and writes an array several times."""
  made = jax.random.bits(jax.random.key(0), (size // 4,), 'uint32')

  @jax.jit
  def copies(x):
    # A step that depends on the last one: no two can become one.
    return jax.lax.fori_loop(0, _COPIES, lambda i, x: x ^ (
        jnp.uint32(i) + 1), x)
  return lambda: copies(made)
