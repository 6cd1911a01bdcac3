"""3x3 convolutions with a quarter of the multiplications, for CPU.

Winograd's minimal filtering (Lavin and Gray, arXiv 1509.09308): a tile of m x m
output pixels costs (m + 2)^2 products instead of 9 m^2. So a pixel costs 2.25
products with 4x4 tiles, 4 with 2x2 tiles, and 9 with plain sums. A convolution
becomes (m + 2)^2 matrix products and sums of slices, which XLA's CPU backend
runs fast, inside loops too.

The price is rounding: in float32 a convolution differs from float64 by 1e-6 to
4e-6 of the norm, and a kernel's gradient by 1e-6 to 3e-6; plain sums by 2e-7 to
4e-7 (`benchmarks/precision_bench.py`). `model.convolution=exact` leaves it out.
Do not use it in bfloat16: `convolution.py` computes that in float32.
"""

from collections.abc import Sequence

from jax import lax
import jax.numpy as jnp

from fedu_jax.core.state import Array

_Matrix = Sequence[Sequence[float]]

# Tile -> the matrices of input, kernel and output (B^T, G, A^T of the paper),
# for the points 0, 1, -1; for tiles of four also 2 and -2.
_MATRICES: dict[int, tuple[_Matrix, _Matrix, _Matrix]] = {
    2: (((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1))),
    4: (((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
         (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
        ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
         (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0),
         (0, 1, -1, 8, -8, 1))),
}


def tile(height: int, width: int) -> int:
  """The largest tile that divides both sides of a map, or 0."""
  return next((m for m in (4, 2) if not height % m and not width % m), 0)


def convolve(x: Array, kernel: Array, *, transposed: bool = False) -> Array:
  """Convolves with stride 1 and padding 1: [B, H, W, C] -> [B, H, W, F].

  Args:
    x: [B, H, W, C] with a `tile(H, W)`.
    kernel: [3, 3, C, F], or [3, 3, F, C] if `transposed`.
    transposed: whether the kernel's channels are swapped; this saves the
      input's gradient a slow copy.
  """
  batch, height, width, _ = x.shape
  m = tile(height, width)
  _, g, a = _MATRICES[m]
  rows = jnp.stack(_combine(g, list(kernel)))
  kernels = _combine(g, [rows[:, j] for j in range(3)])
  products = [_products(v, u, (2, 2 if transposed else 1))
              for v, u in zip(_tiles(x, m), kernels, strict=True)]
  # First the columns of the output, in their order.
  columns = jnp.stack([c.reshape(m + 2, batch, height // m, width // m, -1)
                       for c in _combine(a, products)], axis=4)
  columns = columns.reshape(m + 2, batch, height // m, width, -1)
  return jnp.stack(_combine(a, list(columns)), axis=2).reshape(
      batch, height, width, -1)


def kernel_gradient(x: Array, d_y: Array) -> Array:
  """The gradient of `convolve` with respect to its kernel, [3, 3, C, F].

  Args:
    x: [B, H, W, C].
    d_y: [B, H, W, F], the gradient of the output.
  """
  m = tile(*x.shape[1:3])
  _, g, a = _MATRICES[m]
  rows = jnp.stack(_combine(_transpose(a), [d_y[:, i::m] for i in range(m)]))
  tiles = _combine(_transpose(a), [rows[:, :, :, j::m] for j in range(m)])
  products = [_products(v, t.reshape(m + 2, -1, d_y.shape[-1]), (1, 1))
              for v, t in zip(_tiles(x, m), tiles, strict=True)]
  columns = jnp.stack(_combine(_transpose(g), products), axis=1)
  return jnp.stack(_combine(_transpose(g), list(columns)))


def _tiles(x: Array, m: int) -> list[Array]:
  """Transforms all input tiles, both axes: m + 2 arrays [m + 2, tiles, C]."""
  _, height, width, channels = x.shape
  matrix, _, _ = _MATRICES[m]
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows = jnp.stack(_combine(matrix, [
      x[:, i:i + height - m + 1:m] for i in range(m + 2)]))
  columns = _combine(matrix, [
      rows[:, :, :, j:j + width - m + 1:m] for j in range(m + 2)])
  return [v.reshape(m + 2, -1, channels) for v in columns]


def _combine(matrix: _Matrix, parts: Sequence[Array]) -> list[Array]:
  """matrix @ parts, without products by 0 and 1."""
  def add(row):
    terms = [x if c == 1 else -x if c == -1 else c * x
             for c, x in zip(row, parts, strict=True) if c]
    return sum(terms[1:], terms[0])
  return [add(row) for row in matrix]


def _transpose(matrix: _Matrix) -> _Matrix:
  return tuple(zip(*matrix))


def _products(v: Array, u: Array, contract: tuple[int, int]) -> Array:
  """One matrix product for each row, over one axis of v and one of u."""
  return lax.dot_general(v, u, ((contract[:1], contract[1:]), ((0,), (0,))))
