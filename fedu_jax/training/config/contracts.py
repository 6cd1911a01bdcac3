"""Checks that a researcher's own pieces keep to what docs/swapping.md asks.

Each check is for what a piece returned, and names the field that chose it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core.state import Array, Online, PyTree
from fedu_jax.models import networks
from fedu_jax.runtime.errors import BadInput


def parts(found: Any, *, name: str, num_clients: int, num_examples: int
          ) -> list[np.ndarray]:
  """Returns a partition as arrays of example numbers, one a client.

  Clients may share examples, and some may be no one's.

  Args:
    found: what the partition returned.
    name: config.partition.name.
    num_clients: K.
    num_examples: N.

  Raises:
    BadInput: it is no such list.
  """
  def wrong(what: str) -> BadInput:
    return BadInput(f'partition {name} returned {what}; it must return a list '
                    f'of {num_clients} arrays of whole numbers from 0 to '
                    f'{num_examples - 1}, the examples of each client')
  if not isinstance(found, (list, tuple, np.ndarray)):
    raise wrong(f'a {type(found).__name__}')
  if len(found) != num_clients:
    raise wrong(f'{len(found)} parts')
  checked = []
  for i, part in enumerate(found):
    try:
      rows = np.asarray(part)
    except ValueError as error:
      raise wrong(f'for client {i} what is no array ({error})') from error
    if not rows.size:
      rows = np.zeros(0, int)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
      raise wrong(f'for client {i} {rows.dtype} {rows.shape}')
    if rows.size and not 0 <= rows.min() <= rows.max() < num_examples:
      raise wrong(f'for client {i} numbers from {rows.min()} to {rows.max()}')
    checked.append(rows)
  return checked


def online(nets: Any, rng: Array, images: Array, *, name: str) -> Online:
  """Draws the first network, if `nets` is what a network function must return.

  Args:
    nets: what the function returned.
    rng: a key.
    images: [B, H, W, C] f32, for their shape alone.
    name: config.model.name.

  Raises:
    BadInput: it is no pair of modules that can be called as (x, train=...), or
      one of them does not put out one row an image.
  """
  what = ('it must return fedu_jax.networks.Nets(encoder, predictor), Flax '
          'modules that are called as (x, train=True or False)')
  if ':' not in name:  # one of ours, which need not be traced twice
    return networks.init_online(nets, rng, images)
  try:
    shapes = jax.eval_shape(
        lambda: networks.embeddings(nets, networks.init_online(
            nets, rng, images), images))
  except (TypeError, AttributeError) as error:
    raise BadInput(f'model {name} cannot be run ({error}): {what}') from error
  for part, shape in zip(('encoder', 'predictor'), shapes):
    if len(shape.shape) != 2 or shape.shape[0] != len(images):
      raise BadInput(f'the {part} of model {name} puts out {shape.shape} of '
                     f'{len(images)} images; it must put out [B, D]')
  return networks.init_online(nets, rng, images)


def divergence(measure: Callable[[PyTree, PyTree], Array], params: PyTree, *,
               name: str) -> None:
  """Checks that a divergence can measure a network, and gives one number.

  Args:
    measure: the divergence.
    params: the encoder's.
    name: config.divergence.name.

  Raises:
    BadInput: it cannot, or gives another shape.
  """
  try:
    found = jax.eval_shape(measure, params, params)
    shape, dtype = found.shape, found.dtype
  except (ValueError, TypeError, AttributeError) as error:
    raise BadInput(f'divergence {name} cannot measure this network: {error}'
                   ) from error
  if shape or not jnp.issubdtype(dtype, jnp.floating):
    raise BadInput(f'divergence {name} gives {dtype} of shape {shape}; it must '
                   'give one float')


def cohort(ids: Array, *, name: str, size: int) -> Array:
  """Returns a sampling's cohort [M] as i32.

  Args:
    ids: what the sampling returned.
    name: config.sampling.name.
    size: M.

  Raises:
    BadInput: it is no array of so many whole numbers.
  """
  ids = jnp.asarray(ids)
  if ids.shape != (size,) or not jnp.issubdtype(ids.dtype, jnp.integer):
    raise BadInput(f'sampling {name} returned {ids.dtype} of shape '
                   f'{ids.shape}; it must return {size} whole numbers, the ids '
                   'of clients')
  return ids.astype(jnp.int32)
