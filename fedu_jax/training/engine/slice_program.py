"""Compiles the round of a slice of a cohort, whose clients are in a store."""

from collections.abc import Callable
import functools

import jax

from fedu_jax.core import trees
from fedu_jax.core.state import (
  Array,
  ClientArrays,
  ClientState,
  PyTree,
  ServerState,
)
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import partial_sums
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.recipe import Recipe


def compile_slice(recipe: Recipe, server: ServerState, clients: ClientState,
                  arrays: ClientArrays, ids: Array, rng: Array, *,
                  layout: device_mesh.Layout) -> jax.stages.Compiled:
  """Compiles the round of a slice of a cohort, for arguments like these.

  The program takes the arguments from `server` to `rng`, and the sums over
  earlier slices. It consumes the buffers of `clients` and of those sums.

  Args:
    recipe: the recipe of the federation.
    server: the server.
    clients: the slice, and padding.
    arrays: the images of the slice.
    ids: the ids of the clients, [M] i32.
    rng: the run's key.
    layout: the layout of a slice.
  """
  return _jitted(recipe, layout).lower(
      server, clients, arrays, ids, rng,
      sums_of(recipe, server, clients, layout)).compile()


def sums_of(recipe: Recipe, server: ServerState, clients: ClientState,
            layout: device_mesh.Layout) -> PyTree:
  """Returns the shapes of the sums over slices; () if there are none."""
  if not recipe.in_sums:
    return ()
  sums = jax.eval_shape(
      functools.partial(partial_sums.collect, recipe.aggregation.fn),
      server, clients)
  everywhere = layout.sharding(device_mesh.EVERYWHERE)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=everywhere), sums)


def keep(recipe: Recipe, sums: PyTree, *, meshed: bool
         ) -> Callable[[ServerState, ClientState], PyTree]:
  """Returns what keeps, of a slice's uploads, all that a server needs.

  Args:
    recipe: the recipe of the federation.
    sums: the sums over earlier slices; () if the aggregation takes none.
    meshed: whether this is called within `device_mesh.over_clients`.

  Returns:
    (server, clients) -> the sums with those of the slice, or the clients.
  """
  if not recipe.in_sums:
    return lambda server, seen: seen
  add = functools.partial(trees.weighted_sum,
                          axis=device_mesh.AXIS if meshed else None)
  return lambda server, seen: partial_sums.collect(
      recipe.aggregation.fn, server, seen, sums, add=add)


@functools.lru_cache(maxsize=32)
def _jitted(recipe: Recipe, layout: device_mesh.Layout) -> jax.stages.Wrapped:
  """The round of a slice; JAX compiles it once for each set of shapes."""
  mesh = layout.mesh

  def train(server, clients, arrays, ids, rng, sums):
    uploads, clients, metrics = round_program.run_part(
        recipe, server, clients, arrays, ids, rng,
        aggregate=keep(recipe, sums, meshed=mesh is not None),
        meshed=mesh is not None)
    return clients, metrics, uploads
  if mesh:
    each, all_ = device_mesh.BY_CLIENT, device_mesh.EVERYWHERE
    train = device_mesh.over_clients(
        train, mesh,
        in_specs=(all_, each, each, each, all_, all_),
        out_specs=(each, each, all_ if recipe.in_sums else each))
  # As in `round_program`: arguments are donated even if they are unused.
  return jax.jit(train, donate_argnums=(1, 5), keep_unused=True)
