"""Checks of the arguments of public functions, by shape and dtype.

Each check raises a ValueError that says what was given and what is needed.
Under `jit` only shapes and dtypes are known, so values are then not checked.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core.pixels import DTYPES


def _described(x: Any) -> str:
  shape = getattr(x, 'shape', None)
  return f'{x.dtype} {tuple(shape)}' if shape is not None else (
      f'a {type(x).__name__}')


def _known(x: Any) -> bool:
  """Whether the values of `x` are known, and not only its shape and dtype."""
  return not isinstance(x, (jax.core.Tracer, jax.ShapeDtypeStruct))


def pixels(images: Any, *, channels: Sequence[int] = ()) -> None:
  """Checks that images are [N, H, W, C] u8 or u16, with H, W and C above 0.

  Args:
    images: an array, or anything with a shape and a dtype.
    channels: the allowed values of C; none allows any.

  Raises:
    ValueError: they are not.
  """
  shape = tuple(getattr(images, 'shape', ()))
  if str(getattr(images, 'dtype', '')) not in DTYPES or len(shape) != 4 or (
      0 in shape[1:]) or channels and shape[3] not in channels:
    wanted = ' or '.join(map(str, channels)) or 'C'
    raise ValueError(
        f'images are {_described(images)}; they must be {" or ".join(DTYPES)} '
        f'[N, H, W, {wanted}], with white as the largest value (of floats x in '
        '0..1: np.round(255 * x).astype(np.uint8))')


def count(name: str, value: int) -> None:
  """Checks that a number is at least 1.

  Args:
    name: the number's name in the error message.
    value: the number.

  Raises:
    ValueError: it is below 1.
  """
  if value < 1:
    raise ValueError(f'{name} is {value}; it must be at least 1')


def examples(features: Any, labels: Any, *, name: str, dims: int = 0,
             num_classes: int = 0) -> None:
  """Checks features [N, D] and their labels [N]; N and D must be at least 1.

  Args:
    features: numbers.
    labels: whole numbers, not negative.
    name: the name of the data in the error message.
    dims: the D that is needed; 0 accepts any.
    num_classes: the labels must be below it; 0 sets no limit.

  Raises:
    ValueError: a shape, a dtype or a label is wrong.
  """
  features, labels = (x if hasattr(x, 'dtype') else np.asarray(x)
                      for x in (features, labels))
  shape = np.shape(features)
  if len(shape) != 2 or 0 in shape or dims and shape[1] != dims:
    raise ValueError(f'{name} features are of shape {shape}; they must be [N, '
                     f'{dims or "D"}], with at least one row')
  if np.shape(labels) != shape[:1] or not jnp.issubdtype(
      jnp.result_type(labels), jnp.integer):
    raise ValueError(
        f'{name} labels are {jnp.result_type(labels)} {np.shape(labels)}; they '
        f'must be whole numbers [{shape[0]}], one for each row')
  if _known(labels):
    low, high = np.min(labels), np.max(labels)
    if low < 0 or num_classes and high >= num_classes:
      raise ValueError(f'{name} labels are from {low} to {high}; they must be '
                       f'from 0 to {num_classes - 1 if num_classes else "C-1"}')


def same_shape(a: Any, b: Any, *, names: tuple[str, str]) -> None:
  """Checks that two arrays have the same shape, as NumPy would broadcast them.

  Raises:
    ValueError: the shapes differ.
  """
  if np.shape(a) != np.shape(b):
    raise ValueError(f'{names[0]} is of shape {np.shape(a)}, {names[1]} of '
                     f'{np.shape(b)}; they must be the same')


def parts(found: Sequence[Any], num_examples: int) -> None:
  """Checks that each client's part lists existing rows.

  Args:
    found: for each client, the rows of its examples.
    num_examples: N, the number of examples.

  Raises:
    ValueError: there are no parts, or a part does not consist of whole numbers
      from 0 to N - 1.
  """
  if not len(found):
    raise ValueError('there are no parts: give the rows of one client at least')
  for i, part in enumerate(found):
    rows = np.asarray(part)
    if rows.size and (rows.ndim != 1 or rows.dtype.kind not in 'iu'
                      or rows.min() < 0 or rows.max() >= num_examples):
      raise ValueError(f'the part of client {i} is {_described(rows)}; it must '
                       f'be whole numbers from 0 to {num_examples - 1}')
