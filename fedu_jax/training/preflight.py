"""Checks that a run fits this machine, before its folder is written."""

from collections.abc import Sequence
import pathlib
import time

import jax
import numpy as np

from fedu_jax.core.state import Online
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import multihost
from fedu_jax.training import forecast
from fedu_jax.training.engine import placement
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.recipe import Recipe

# Bytes that the compiler needs for the smallest round, with its threads.
_COMPILER = 2**28


def check(recipe: Recipe, where: placement.Place, online: Online,
          images: Images, parts: Sequence[list[np.ndarray]],
          folders: Sequence[pathlib.Path]) -> float:
  """Checks that federations fit the memory of this machine.

  A formula first checks the least that any compiler needs. For new runs, a
  round is then compiled, which the run needs anyway, and the compiler's figure
  is checked. A resumed run makes this check when its round is compiled.

  Args:
    recipe: the recipe of all of them.
    where: the place of each of them.
    online: a server's first network.
    images: [N, H, W, C] u8 or u16.
    parts: for each federation and client, its rows of `images`.
    folders: the folders of the runs.

  Returns:
    The seconds of compilation.

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
  # Without memory, the compiler aborts the process without a message.
  host_memory.refuse(_COMPILER, 'compiling a round', 'end other programs, or '
                     'raise the limit (of the container, the job, or ulimit)')
  began = time.perf_counter()
  shape, sizes = images.shape[1:], where.sizes
  drawn = where.store == 'device' and sizes.cohort < sizes.clients
  recipe = recipe.with_full_steps(
      [list(map(len, own)) for own in parts[:together]],
      slice_=0 if where.store == 'device' else where.layout.padded)
  compiled = forecast.compile_round(
      recipe, round_program.shapes(recipe, online, shape),
      jax.ShapeDtypeStruct((max(map(len, parts[0])), *shape), images.dtype),
      layout=where.layout, store=where.store,
      rows=sizes.clients if drawn else where.layout.padded, together=together,
      chunk_steps=sizes.chunk_steps)
  placement.check(recipe, where, compiled, together=together)
  return time.perf_counter() - began
