"""Images as integers, and as floats from 0 to 1.

Images are stored, sent and copied as integers: uint8, or uint16 for sensors of
more bits. Networks see floats. This module is the one place that converts.
"""

from typing import Any

import numpy as np

CHANNELS = (1, 3)  # grey, or red, green and blue
DTYPES = ('uint8', 'uint16')


def to_unit(images: Any) -> Any:
  """Scales pixels to 0..1 by the largest value of their dtype.

  Args:
    images: [...] uint8 or uint16, of NumPy or JAX.

  Returns:
    [...] f32, of the same library.
  """
  return images.astype(np.float32) / np.iinfo(images.dtype).max


def from_unit(images: np.ndarray, dtype: Any) -> np.ndarray:
  """Rounds floats in 0..1 to pixels.

  Args:
    images: [...] f32, of NumPy.
    dtype: uint8 or uint16.

  Returns:
    [...] of this dtype.
  """
  return np.asarray(np.round(np.iinfo(dtype).max * images)).astype(dtype)
