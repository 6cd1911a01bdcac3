"""A small round of clients that moves nothing between host and device."""

import pathlib
import tempfile
import time

import numpy as np

from benchmarks.gpu_day import federations
from benchmarks.gpu_day.worker import Work
from fedu_jax.runtime import prng


@prng.fixed()
def run(work: Work) -> None:
  """Writes one row.

  Raises:
    ValueError: a loss is not finite.
  """
  federations.wait_for(work.data, work.left())
  config = federations.config_of(work.data, work.sizes.same | {
      'model.name': 'resnet6', 'model.width': 8})
  with tempfile.TemporaryDirectory() as folder:
    federation = federations.make(config, pathlib.Path(folder)).federation
    began = time.perf_counter()
    federation.compile()
    compiled = time.perf_counter() - began
    # Each is under jax.transfer_guard, which raises an error.
    loss = np.asarray([federation.advance()[0]['loss'] for _ in range(2)])
  if not np.isfinite(loss).all():
    raise ValueError(f'the losses are {loss.tolist()}')
  work.records.add('row', name='guard', compile_seconds=compiled,
                   losses=[float(x) for x in loss.ravel()])
