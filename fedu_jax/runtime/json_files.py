"""JSON files of arrays and numbers, written as a whole or not at all."""

import json
import math
import pathlib
from typing import Any

import numpy as np

from fedu_jax.runtime import durable_files


def write(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file as a whole or not at all.

  Args:
    path: the file, in a folder that exists.
    value: dicts, lists, arrays and numbers, see `plain`.

  Raises:
    OSError: the file cannot be written.
  """
  durable_files.write(
      path, (json.dumps(plain(value), indent=2) + '\n').encode())


def attempt(path: pathlib.Path, value: Any) -> durable_files.Unwritten | None:
  """Writes as `write` does; returns the failure if that fails, else None."""
  try:
    write(path, value)
  except OSError as error:
    return durable_files.Unwritten(f'{path.name} could not be written', error)
  return None


def plain(value: Any) -> Any:
  """Returns a value that JSON can hold.

  Arrays and tuples become lists, and numbers that are not finite become None. A
  float32 becomes the shortest decimal number that identifies it.
  """
  if isinstance(value, dict):
    return {key: plain(x) for key, x in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(x) for x in value]
  if hasattr(value, 'tolist'):
    value = np.asarray(value)
    if value.dtype == np.float32:  # in its own digits, half of a double's
      value = value.astype(str).astype(float)
    return plain(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
