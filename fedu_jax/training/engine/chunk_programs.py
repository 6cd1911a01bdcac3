"""Compiles the parts of a round whose images come in chunks of steps.

`draw` says which images a client needs. `start`, `steps` for each chunk, and
`end` then train clients, one on each device. `end` calls
`core.rounds.run_round`, as every round does.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedu_jax.core import chunked_training
from fedu_jax.core import rounds
from fedu_jax.core.chunked_training import Chunk
from fedu_jax.core.state import (
  Array,
  ClientArrays,
  ClientState,
  PyTree,
)
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine import slice_program
from fedu_jax.training.engine.recipe import Recipe


class Shapes(NamedTuple):
  """What the programs are compiled for, besides a recipe and a layout.

  Attributes:
    batch: the shapes of the images of a step, [B, H, W, C]; hashable.
    most: N, the images of the largest client.
    length: n, the steps of a chunk.
  """
  batch: PyTree
  most: int
  length: int

  def steps(self, recipe: Recipe) -> int:
    """S, the steps of the largest client in a round."""
    return recipe.local_epochs * (self.most // recipe.batch_size)

  def full(self, recipe: Recipe) -> bool:
    """Whether every chunk has n steps, so that none is counted.

    A loop of one turn would be taken apart, and its bits could be others.
    """
    steps = self.steps(recipe)
    return recipe.full_steps and not steps % self.length and (
        self.length > 1 or steps == 1)


class Work(NamedTuple):
  """What clients do in a round: the parts of `round_program.draw_work`."""
  rows: Array  # [M, S, B] i32, of each client's images
  mask: Array | None  # [M, S] bool
  arrived: Array | None  # [M] bool
  rngs: Array  # [M] keys of the training


def draw(recipe: Recipe, shapes: Shapes,
         layout: device_mesh.Layout) -> Callable[..., Work]:
  """Returns (rng, round, sizes [M] i32, ids [M] i32) -> the work of clients."""
  def drawn(rng, round_, sizes, ids):
    # Images of no bytes: only their number counts.
    arrays = ClientArrays(jnp.zeros((len(ids), shapes.most, 0), jnp.uint8),
                          sizes)
    batches, arrived = round_program.draw_work(recipe, arrays, rng, round_, ids)
    return Work(batches.index, batches.mask, arrived,
                round_program.training_rngs(rng, round_, ids))
  everywhere: Any = layout.sharding(device_mesh.EVERYWHERE)
  each: Any = layout.sharding(device_mesh.BY_CLIENT)
  return jax.jit(drawn, out_shardings=Work(
      everywhere, None if recipe.full_steps else everywhere,
      each if recipe.dropout else None, each))


def compile_start(recipe: Recipe, shapes: Shapes, layout: device_mesh.Layout,
                  *args: Any) -> jax.stages.Compiled:
  """Compiles (server, clients, keys) -> (clients after the download, progress).

  It consumes the buffers of the clients.
  """
  return _jitted_start(recipe, shapes, layout).lower(*args).compile()


@functools.lru_cache(maxsize=32)
def _jitted_start(recipe, shapes, layout):
  def start(server, clients, rngs):
    clients = jax.vmap(recipe.rule.fn, in_axes=(0, None))(clients, server)
    return clients, rounds.map_clients(
        lambda client, rng: chunked_training.start(
            client, server.round, rng, learner=recipe.learner,
            batch=shapes.batch, steps=shapes.steps(recipe)))(clients, rngs)
  return _over_clients(start, layout, 'aee', 'ee', donate=(1,))


def compile_steps(recipe: Recipe, shapes: Shapes, layout: device_mesh.Layout,
                  client: ClientState) -> jax.stages.Compiled:
  """Compiles (progress, chunk, keys) -> (progress, a sign of the end).

  It consumes the buffers of the progress. The sign is an array of its own, and
  can be waited for.

  Args:
    recipe: the recipe of the federation.
    shapes: the shapes of the images.
    layout: the layout of clients that train at once.
    client: one client, or its shapes.
  """
  each = layout.sharding(device_mesh.BY_CLIENT)

  def of_each(x, *shape):
    return jax.ShapeDtypeStruct((layout.padded, *shape, *x.shape), x.dtype,
                                sharding=each)
  rng = jax.eval_shape(lambda: jax.random.key(0))
  progress = jax.eval_shape(functools.partial(
      chunked_training.start, learner=recipe.learner, batch=shapes.batch,
      steps=shapes.steps(recipe)), client,
      jax.ShapeDtypeStruct((), jnp.int32), rng)
  number = jax.ShapeDtypeStruct((), jnp.int32)
  chunk = Chunk(
      jax.tree.map(lambda x: of_each(jax.ShapeDtypeStruct(
          (shapes.length * x.shape[0], *x.shape[1:]), x.dtype)), shapes.batch),
      of_each(number, shapes.length),
      None if shapes.full(recipe) else of_each(number))
  return _jitted_steps(recipe, layout).lower(
      jax.tree.map(of_each, progress), chunk, of_each(rng)).compile()


@functools.lru_cache(maxsize=32)
def _jitted_steps(recipe, layout):
  go_on = functools.partial(chunked_training.go_on, learner=recipe.learner,
                            packed=recipe.packed)

  def steps(progress, chunk, rngs):
    # The sum is computed, since an argument would be returned as it is.
    return (rounds.map_clients(go_on)(progress, chunk, rngs),
            chunk.numbers.sum(1))
  return _over_clients(steps, layout, 'eee', 'ee', donate=(0,))


def compile_end(recipe: Recipe, layout: device_mesh.Layout,
                *args: Any) -> jax.stages.Compiled:
  """Compiles the rest of the round of a slice.

  The program takes the server, the clients after the download, their progress,
  the number of their steps [M] i32, the uploads that arrive [M] bool or None,
  the clients' ids [M] i32, the run's key, and the sums over earlier slices. It
  returns what that of `slice_program` does. It consumes the buffers of the
  clients and of the sums.
  """
  return _jitted_end(recipe, layout).lower(*args).compile()


@functools.lru_cache(maxsize=32)
def _jitted_end(recipe, layout):
  def end(server, clients, progress, steps, arrived, ids, rng, sums):
    def trained(client, work, _):
      progress, count = work
      return chunked_training.end(
          client, progress, count, server.round, learner=recipe.learner,
          distance=recipe.divergence)
    done: Any = progress, steps  # in place of batches
    uploads, clients, metrics = rounds.run_round(
        server, clients, done, rng,
        aggregate=slice_program.keep(recipe, sums,
                                     meshed=layout.mesh is not None),
        arrived=arrived, ids=ids, local_update=trained,
        rule=lambda client, _: client)  # `start` has downloaded
    return clients, metrics | {'cohort': ids}, uploads
  return _over_clients(end, layout, 'aeeeeeaa',
                       'eea' if recipe.in_sums else 'eee', donate=(1, 7))


def _over_clients(fn, layout, args, results, *, donate):
  """Compiles a function of clients on devices: 'e' each, 'a' all."""
  spec = {'e': device_mesh.BY_CLIENT, 'a': device_mesh.EVERYWHERE}
  if layout.mesh:
    fn = device_mesh.over_clients(
        fn, layout.mesh, in_specs=tuple(spec[x] for x in args),
        out_specs=tuple(spec[x] for x in results))
  # As in `round_program`: arguments are donated even if they are unused.
  return jax.jit(fn, donate_argnums=donate, keep_unused=True)
