"""Reads a source, to its last image: `python -m tests.faults.load npz:x`.

It prints the number of images, the number of skipped files, and a digest; or it
refuses as the program does.
"""

import hashlib
import sys

from absl import logging
import numpy as np

from fedu_jax.data import sources
from fedu_jax.runtime import cli
from fedu_jax.runtime.errors import BadInput


def main(source: str, lazy: str, data_dir: str = '', fit: str = 'crop',
         depth: str = '0', colours: str = 'stored') -> None:
  """Reads a source; `lazy` is 'lazy' or another word."""
  logging.set_verbosity(logging.ERROR)  # as the program does
  try:
    data = sources.load(source, data_dir=data_dir, lazy=lazy == 'lazy',
                        fit=fit, depth=int(depth), colours=colours,
                        image_size=8 if source.startswith('folder') else 0)
    digest = hashlib.sha256(np.asarray(data.train_images).tobytes())
    for x in (data.train_labels, data.owners):
      digest.update(b'' if x is None else x.astype(np.int32).tobytes())
  except BadInput as error:
    cli.refuse(error)
  print(len(data.train_images), len(data.skipped), digest.hexdigest())


if __name__ == '__main__':
  main(*sys.argv[1:])
