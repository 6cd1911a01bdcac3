"""The precision of products of float32 numbers: matrix products, convolutions.

An accelerator rounds the factors of such a product unless it is told not to. A
CPU never does. `docs/performance.md` says what each backend computes.

The precision is set around a call, so it reaches each product in it that asks
for none itself, in a researcher's own functions too.
"""

from collections.abc import Callable
import functools
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec('P')
R = TypeVar('R')

# config.model.precision -> the precision that JAX is asked for.
PRECISIONS = {
    'default': None,  # the backend's own
    'tensorfloat32': 'high',
    'float32': 'highest'}
FULL = jax.lax.Precision.HIGHEST  # for a single product


def computed_in(precision: str, fn: Callable[P, R]) -> Callable[P, R]:
  """Gives the products of a function and of its gradients a precision.

  Args:
    precision: one of PRECISIONS. 'default' returns `fn` itself.
    fn: any function; its products that ask for a precision keep theirs.
  """
  asked = PRECISIONS[precision]
  if asked is None:
    return fn

  @functools.wraps(fn)
  def called(*args: P.args, **kwargs: P.kwargs) -> R:
    with jax.default_matmul_precision(asked):
      return fn(*args, **kwargs)
  return called


def full(fn: Callable[P, R]) -> Callable[P, R]:
  """Makes a function compute its products in full float32; a decorator."""
  return computed_in('float32', fn)
