"""Digests of a finished run: its figures by round, and its last checkpoint.

  python -m benchmarks.gpu_day.digest WORKDIR ...
"""

import contextlib
import hashlib
import json
import pathlib
import sys

import jax
import numpy as np

from fedu_jax.runtime.checkpoint import Checkpoints

# What the clock says differs between equal runs.
_TIMES = ('seconds', 'second', 'time')


def of(folder: pathlib.Path) -> dict[str, str]:
  """Returns the digests of a run's metrics and of its whole state."""
  metrics = hashlib.sha256()
  for line in (folder / 'metrics.jsonl').read_text().splitlines():
    metrics.update(json.dumps({
        name: value for name, value in json.loads(line).items()
        if not any(x in name for x in _TIMES)}, sort_keys=True).encode())
  state = hashlib.sha256()
  with contextlib.closing(Checkpoints(folder / 'checkpoints',
                                      keep=1)) as saved:
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        saved.restore_plain()):
      if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
      x = np.asarray(leaf)
      state.update(f'{jax.tree_util.keystr(path)} {x.dtype} {x.shape}'.encode())
      state.update(x.tobytes())
  return {'metrics': metrics.hexdigest(), 'state': state.hexdigest()}


if __name__ == '__main__':
  for argument in sys.argv[1:]:
    workdir = pathlib.Path(argument)
    (workdir / 'digest.json').write_text(json.dumps(of(workdir)))
