"""The matrix products and convolutions of a function, read from its jaxpr."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax


class Product(NamedTuple):
  """One dot_general or conv_general_dilated."""
  primitive: str
  factors: tuple[str, str]  # their dtypes
  dtype: str  # the result's
  precision: Any  # None, or the two that JAX is asked for


def of(fn: Callable[..., Any], *args: Any) -> list[Product]:
  """Traces a function and returns its products, in all branches and loops."""
  return list(_walk(jax.make_jaxpr(fn)(*args).jaxpr))


def _walk(jaxpr: Any) -> Iterator[Product]:
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield Product(eqn.primitive.name,
                    tuple(str(v.aval.dtype) for v in eqn.invars),
                    str(eqn.outvars[0].aval.dtype), eqn.params['precision'])
    for inner in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')):
      if hasattr(getattr(inner, 'jaxpr', inner), 'eqns'):
        yield from _walk(getattr(inner, 'jaxpr', inner))
