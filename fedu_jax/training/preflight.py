"""Whether a run fits this machine, asked before its folder is touched."""

from collections.abc import Sequence
import pathlib
import time

import ml_collections
import numpy as np

from fedu_jax import forecast
from fedu_jax import hosts
from fedu_jax import memory
from fedu_jax import networks
from fedu_jax import place
from fedu_jax import program
from fedu_jax.lazy import Images
from fedu_jax.state import Online

# Bytes: the smallest round compiles in about as many, threads included.
_COMPILER = 2**28


def check(config: ml_collections.ConfigDict, nets: networks.Nets,
          online: Online, images: Images,
          parts: Sequence[list[np.ndarray]],
          folders: Sequence[pathlib.Path]) -> float:
  """Refuses federations that do not fit the memory here.

  A formula refuses first what no compiler can make room for. For runs that have
  not begun, a round is then compiled, as the run will need it, and the compiler
  says what it takes. Of a run that has begun, `federation` asks that once its
  round is compiled.

  Args:
    config: of all of them, but for the seed.
    nets: the networks.
    online: what a server sends out first.
    images: [N, H, W, C] u8.
    parts: of each federation, for each client its rows of `images`.
    folders: of the runs.

  Returns:
    The seconds that it took to compile.

  Raises:
    BadInput: they do not fit, or the devices cannot be had.
  """
  where = place.choose(config, nets, online, images, parts[0],
                       num_members=len(parts))
  alike = len({max(map(len, own)) for own in parts}) == 1
  together = len(parts) if (alike and where.store == 'device'
                            and not where.layout.mesh) else 1
  place.check(config, where, together=together)
  if hosts.several() or any((folder / 'checkpoints').exists()
                            for folder in folders):
    return 0.0
  # A compiler without memory aborts the process, without a word.
  memory.refuse(_COMPILER, 'compiling a round', 'end other programs, or raise '
                'the limit (of the container, the job, or ulimit)')
  began = time.perf_counter()
  shape, sizes = images.shape[1:], where.sizes
  drawn = where.store == 'device' and sizes.cohort < sizes.clients
  compiled = forecast.compile_round(
      config, nets, program.shapes(config, nets, online, shape),
      (max(map(len, parts[0])), *shape), layout=where.layout, store=where.store,
      rows=sizes.clients if drawn else where.layout.padded, together=together)
  place.check(config, where, compiled, together=together)
  return time.perf_counter() - began
