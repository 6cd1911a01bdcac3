"""Whether a run fits this machine, asked before its folder is touched."""

from collections.abc import Sequence
import pathlib
import time

import numpy as np

from fedu_jax.core.state import Online
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import multihost
from fedu_jax.training.engine import placement
from fedu_jax.training.engine.recipe import Recipe
from fedu_jax.training.engine import round_program
from fedu_jax.training import forecast

# Bytes: the smallest round compiles in about as many, threads included.
_COMPILER = 2**28


def check(recipe: Recipe, where: placement.Place, online: Online,
          images: Images, parts: Sequence[list[np.ndarray]],
          folders: Sequence[pathlib.Path]) -> float:
  """Refuses federations that do not fit the memory here.

  A formula refuses first what no compiler can make room for. For runs that have
  not begun, a round is then compiled, as the run will need it, and the compiler
  says what it takes. Of a run that has begun, `federation` asks that once its
  round is compiled.

  Args:
    recipe: of all of them.
    where: they are to run.
    online: what a server sends out first.
    images: [N, H, W, C] u8.
    parts: of each federation, for each client its rows of `images`.
    folders: of the runs.

  Returns:
    The seconds that it took to compile.

  Raises:
    BadInput: they do not fit.
  """
  alike = len({max(map(len, own)) for own in parts}) == 1
  together = len(parts) if (alike and where.store == 'device'
                            and not where.layout.mesh) else 1
  placement.check(recipe, where, together=together)
  if multihost.several() or any((folder / 'checkpoints').exists()
                                for folder in folders):
    return 0.0
  # A compiler without memory aborts the process, without a word.
  host_memory.refuse(_COMPILER, 'compiling a round', 'end other programs, or '
                     'raise the limit (of the container, the job, or ulimit)')
  began = time.perf_counter()
  shape, sizes = images.shape[1:], where.sizes
  drawn = where.store == 'device' and sizes.cohort < sizes.clients
  compiled = forecast.compile_round(
      recipe, round_program.shapes(recipe, online, shape),
      (max(map(len, parts[0])), *shape), layout=where.layout, store=where.store,
      rows=sizes.clients if drawn else where.layout.padded, together=together)
  placement.check(recipe, where, compiled, together=together)
  return time.perf_counter() - began
