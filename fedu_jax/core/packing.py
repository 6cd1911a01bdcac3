"""Joins the small arrays of a state, for programs with fewer kernels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedu_jax.core.state import PyTree

SMALL = 8192  # numbers; a vector of BatchNorm or a bias has fewer


def packing(tree: PyTree, most: int | None = SMALL
            ) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], PyTree]]:
  """Returns functions that join the small arrays of trees, and split them.

  An optimiser step on a tree is a kernel or more for each array, however small.
  On joined arrays it is a few. No number changes.

  Args:
    tree: a tree, or its shapes. Both functions are for trees like this one.
    most: the largest size of an array that is joined; None joins no arrays.

  Returns:
    The function that joins: tree -> a tree with one vector for each dtype of
    small arrays of floats, and with the other arrays as they are; and the
    inverse function.
  """
  leaves, structure = jax.tree.flatten(tree)
  shapes = [jnp.shape(x) for x in leaves]
  groups: dict[str, list[int]] = {}  # a dtype -> the places of its arrays
  for place, x in enumerate(leaves):
    small = most is not None and x.size <= most
    if small and jnp.issubdtype(x.dtype, jnp.inexact):
      groups.setdefault(str(x.dtype), []).append(place)
  joined = {place for group in groups.values() for place in group}

  def pack(tree: PyTree) -> PyTree:
    leaves = jax.tree.leaves(tree)
    return ({name: jnp.concatenate([leaves[place].ravel() for place in group])
             for name, group in groups.items()},
            [x for place, x in enumerate(leaves) if place not in joined])

  def unpack(packed: PyTree) -> PyTree:
    vectors, others = packed
    found = {}
    for name, group in groups.items():
      start = 0
      for place in group:
        end = start + leaves[place].size
        found[place] = vectors[name][start:end].reshape(shapes[place])
        start = end
    rest = iter(others)
    return jax.tree.unflatten(structure, [
        found[place] if place in joined else next(rest)
        for place in range(len(leaves))])

  return pack, unpack
