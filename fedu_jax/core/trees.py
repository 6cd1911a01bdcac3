"""Arithmetic on pytrees: select, index, average, measure distances."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from fedu_jax.core.state import Array, Metrics, PyTree


def where(condition: Array | bool, a: PyTree, b: PyTree) -> PyTree:
  """Returns tree `a` if the scalar `condition` is true, else tree `b`."""
  return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def take(tree: PyTree, index: Array) -> PyTree:
  """Returns the rows `index` of every leaf's leading axis."""
  return jax.tree.map(lambda x: x[index], tree)


def put(tree: PyTree, index: Array, rows: PyTree) -> PyTree:
  """Returns `tree` with the rows `index` of every leaf replaced."""
  return jax.tree.map(lambda x, y: x.at[index].set(y), tree, rows)


def equal(a: PyTree, b: PyTree) -> Array:
  """Returns whether all numbers of two trees are equal, as [] bool."""
  same = jax.tree.map(lambda x, y: jnp.all(x == y), a, b)
  return jnp.all(jnp.array(jax.tree.leaves(same), bool))


def sound(tree: PyTree) -> Array:
  """Returns whether the numbers of a tree can be averaged, as [] bool.

  A tree is sound if the sum of squares of each array of floats is finite. This
  one reduction finds NaN, infinity, and numbers whose squares overflow (above
  1.8e19 in float32). A weighted mean of sound trees cannot overflow. Integers
  are always sound.
  """
  def finite(x):
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.isfinite(jnp.sum(jnp.square(x.astype(wide))))
  found = [finite(x) for x in map(jnp.asarray, jax.tree.leaves(tree))
           if jnp.issubdtype(x.dtype, jnp.inexact)]
  # The smallest of the flags says whether all hold. It is found by a sort and
  # not by `all`: XLA fuses `all` into each later select and computes it there
  # again, which was half of a round's instructions. It cannot fuse a sort.
  return jnp.sort(jnp.array([True, *found]))[0]


def blend(a: PyTree, b: PyTree, weight: Array) -> PyTree:
  """Returns weight * a + (1 - weight) * b, leaf by leaf."""
  return jax.tree.map(lambda x, y: weight * x + (1 - weight) * y, a, b)


def weighted_sum(trees: PyTree, weights: Array, *, axis: str | None = None,
                 start: tuple[PyTree, Array] | None = None
                 ) -> tuple[PyTree, Array]:
  """Sums stacked trees with weights, in the order of their rows.

  Rows are added one after the other, as in the released code. The result
  therefore does not depend on how XLA schedules a reduction. A row of weight
  zero adds nothing, even if it holds NaN.

  Args:
    trees: a tree whose leaves have a leading axis [K].
    weights: [K], not negative.
    axis: the mesh axis that the rows are sharded over, if any. One all-reduce
      then adds the sums of the devices, in an order that JAX chooses.
    start: the result of an earlier call, to which these rows are added. Without
      an axis, the result has the same bits as one call with all rows.

  Returns:
    The tree of sums, without the leading axis, in the dtype of `trees`; and the
    sum of the weights, [].
  """
  def add(total, row):
    tree, weight = row
    return jax.tree.map(
        lambda t, x: t + jnp.where(weight > 0, weight.astype(x.dtype) * x, 0),
        total, tree), None

  first = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), trees)
  if start is not None and axis is None:
    first = start[0]
  total, _ = jax.lax.scan(add, first, (trees, weights))
  if axis is None:
    return total, weights.sum() + (0 if start is None else start[1])
  # As one array, so that there is one all-reduce and not one for each leaf.
  flat, unflatten = jax.flatten_util.ravel_pytree((total, weights.sum()))
  sums = unflatten(jax.lax.psum(flat, axis))
  return sums if start is None else jax.tree.map(jnp.add, sums, start)


def mean(sums: tuple[PyTree, Array], otherwise: PyTree) -> PyTree:
  """Returns the mean of a `weighted_sum`; `otherwise` if all weights are 0."""
  total, weight = sums
  return jax.tree.map(
      lambda t, x: jnp.where(weight > 0, t / weight.astype(t.dtype), x),
      total, otherwise)


def conv_distances(a: PyTree, b: PyTree) -> Metrics:
  """Measures the L2 distance of convolution kernels, for each layer.

  Only layers with `conv` in their own name count: conv1 and the main path of
  the blocks. The 1x1 shortcuts, BatchNorm and the projector do not count. This
  follows the released code (EasyFL fedssl, client.py:_calculate_divergence).

  Args:
    a: encoder parameters.
    b: encoder parameters of the same structure.

  Returns:
    A dict from a layer's path, joined by '/', to its distance []. It is empty
    if there is no such layer.
  """
  distances = {}
  rows = jax.tree_util.tree_leaves_with_path(a)
  for (path, x), y in zip(rows, jax.tree.leaves(b), strict=True):
    *layer, last = path_names(path) or ['']
    if last == 'kernel' and layer and 'conv' in layer[-1]:
      distances['/'.join(layer)] = jnp.sqrt(jnp.sum(jnp.square(x - y)))
  return distances


def path_names(path: Iterable[Any]) -> list[str]:
  """Returns the names of a path's parts: keys, attributes or positions.

  Args:
    path: one of `jax.tree_util.tree_leaves_with_path`.
  """
  return [_name(key) for key in path]


def _name(key: Any) -> str:
  for attribute in ('key', 'name', 'idx'):
    if hasattr(key, attribute):
      return str(getattr(key, attribute))
  return str(key)


def conv_distance(a: PyTree, b: PyTree) -> Array:
  """The released code's divergence: the mean of `conv_distances`, [] f32.

  Raises:
    ValueError: no layer counts.
  """
  distances = list(conv_distances(a, b).values())
  if not distances:
    raise ValueError(
        "no layer has 'conv' in its name, so there is no divergence to "
        'measure: use squared_distance or a measure of your own')
  return jnp.mean(jnp.stack(distances))


def squared_distance(a: PyTree, b: PyTree) -> Array:
  """The paper's divergence: the squared L2 norm over all parameters, [] f32."""
  squares = jax.tree.leaves(
      jax.tree.map(lambda x, y: jnp.sum(jnp.square(x - y)), a, b))
  return jnp.sum(jnp.stack(squares or [jnp.float32(0)]))


def scaled_by_cosine(tree: PyTree, centre: PyTree) -> PyTree:
  """Scales each leaf by its cosine with that leaf of `centre`, at most 1."""
  def leaf(x, c):
    norms = jnp.linalg.norm(x.ravel()) * jnp.linalg.norm(c.ravel())
    cosine = jnp.sum(x * c) / jnp.where(norms > 0, norms, 1)
    # A leaf of zeros has no direction, so it is not scaled.
    return x * jnp.where(norms > 0, jnp.minimum(cosine, 1), 1)
  return jax.tree.map(leaf, tree, centre)


def num_bytes(tree: PyTree) -> int:
  """Returns the bytes of all leaves together."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


# config.divergence.name -> a function.
DIVERGENCES: dict[str, Callable[[PyTree, PyTree], Array]] = {
    'conv_distance': conv_distance,
    'squared_distance': squared_distance,
}
