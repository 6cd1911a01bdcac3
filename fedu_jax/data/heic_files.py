"""Decodes HEIC files, as phones write them, by pillow-heif.

Its plugin is not registered in Pillow, so that other programs' images stay as
they are.
"""

import io

import numpy as np
from PIL import Image

from fedu_jax.data import pixel_arrays


def opened(content: bytes) -> Image.Image:
  """Opens a file as an image of 8 bits; deeper ones are reduced."""
  import pillow_heif
  return pillow_heif.HeifImageFile(io.BytesIO(content))


def deep(content: bytes) -> np.ndarray | None:
  """Decodes a file of more than 8 bits: [H, W, 1 or 3] u16; else None."""
  import pillow_heif
  file = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False)
  bits = int(file.info.get('bit_depth', 8))
  if bits <= 8:
    return None
  # The library shifts the values to the top of 16 bits.
  values = np.asarray(file) >> 16 - bits
  values = values.reshape(*values.shape[:2], -1)
  channels = 3 if values.shape[-1] >= 3 else 1
  return pixel_arrays.stretched(values[..., :channels], bits)
