"""Folders of images as two sites have them."""

import pathlib

import numpy as np
from PIL import Image


def two_sites(root: pathlib.Path) -> None:
  """Writes five random images of 9x9 pixels for each of ann and bob."""
  draw = np.random.RandomState(0)
  for name in ('ann', 'bob'):
    (root / name).mkdir(parents=True)
    for i in range(5):
      Image.fromarray(draw.randint(0, 256, (9, 9, 3), np.uint8)).save(
          root / name / f'{i}.png')
