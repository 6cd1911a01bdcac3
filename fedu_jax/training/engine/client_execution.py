"""Chooses how the clients of a device train: one after the other, or at once.

`execution='auto'` is decided by counts of compiled rounds and by published
peaks of chips, because no accelerator has been timed. benchmarks/RECORDS.md has
the counts.
"""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from fedu_jax.core import trees
from fedu_jax.core.state import Online, PyTree, Variables
from fedu_jax.training.engine.recipe import Recipe

# A launch takes 1 us in XLA's cost model, and 2 us in our files of chips. `map`
# is given the first, and `vmap` the second: the choice then holds for both.
_LEAST_LAUNCH, _LAUNCH = 1e-6, 2e-6  # seconds
# By the counts: kernels of `map` for each array of parameters, at least, and
# those of `vmap` for each of `map`, at most.
_KERNELS, _MORE = 5, 1.25
# By the counts, for `vmap`: the bytes that a client's step moves, as its
# largest map for each kernel of `map`, and as its parameters.
_MAPS, _PARAMS = 1, 16
_MOST_CLIENTS = 32  # more were not counted


class Work(NamedTuple):
  """What a client's step does, as far as the choice depends on it."""
  arrays: int  # the arrays of its parameters
  params: float  # their bytes
  largest: float  # bytes of its largest map


def of(recipe: Recipe, online: Online, image: tuple[int, ...], *,
       clients: int) -> str:
  """Returns 'map' or 'vmap' for the clients of a device.

  Args:
    recipe: the recipe of the federation.
    online: the server's network, or its shapes.
    image: [H, W, C] of an image.
    clients: the number of clients that train on the device.
  """
  if recipe.execution != 'auto':
    return recipe.execution
  if (not recipe.bandwidth or not recipe.full_steps
      or recipe.devices_per_client > 1 or clients > _MOST_CLIENTS):
    return 'map'
  views = 2 if recipe.nets.together else 1
  params = online.encoder.params, online.predictor.params
  work = Work(len(jax.tree.leaves(params)), trees.num_bytes(params),
              largest_map(recipe.nets.encoder, online.encoder,
                          (views * recipe.batch_size, *image)))
  return 'vmap' if at_once(work, clients, recipe.bandwidth) else 'map'


def at_once(work: Work, clients: int, bandwidth: float) -> bool:
  """Whether `vmap` is faster than `map` by the counts, whatever is uncertain.

  `map` launches each kernel for each client. `vmap` launches it once, but it
  moves more bytes: around grouped convolutions, maps are transposed. So `vmap`
  is chosen if `map`'s launches alone take longer than the launches and the
  bytes of `vmap` together. Products are left out: where this holds, they are
  small.

  Args:
    work: the work of a client's step.
    clients: the number of clients that train on the device.
    bandwidth: bytes a second of the device's memory.
  """
  kernels = _KERNELS * work.arrays
  moved = kernels * _MAPS * work.largest + _PARAMS * work.params
  together = _MORE * kernels * _LAUNCH / clients + moved / bandwidth
  return together < kernels * _LEAST_LAUNCH


def largest_map(module: nn.Module, variables: Variables,
                images: tuple[int, ...]) -> int:
  """Returns the bytes of the largest output of a network's layers.

  Args:
    module: the network.
    variables: its variables, or their shapes.
    images: [B, H, W, C].
  """
  def layers(variables: PyTree, x: jax.Array) -> PyTree:
    return module.apply(variables, x, train=False, capture_intermediates=True,
                        mutable=['intermediates'])[1]
  found = jax.eval_shape(layers, variables._asdict(),
                         jax.ShapeDtypeStruct(images, jnp.float32))
  return max(x.size * x.dtype.itemsize for x in jax.tree.leaves(found))
