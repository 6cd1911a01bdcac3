"""Checks that a researcher's own pieces keep the contract of docs/swapping.md.

Each check takes what a piece returned. Its message names the config field that
chose the piece.
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
  """Checks a partition; returns an array of example numbers for each client.

  Clients may share examples, and an example may belong to no client.

  Args:
    found: the result of the partition.
    name: config.partition.name.
    num_clients: K.
    num_examples: N.

  Raises:
    BadInput: the result is no list of K arrays of numbers from 0 to N - 1.
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
  """Checks the result of a network function, and draws the first network.

  Args:
    nets: the result of the function.
    rng: a key.
    images: [B, H, W, C] f32; only their shape is used.
    name: config.model.name.

  Raises:
    BadInput: the result is no pair of modules that can be called as (x,
      train=...), or a module does not return one row for each image.
  """
  what = ('it must return fedu_jax.networks.Nets(encoder, predictor), Flax '
          'modules that are called as (x, train=True or False)')
  if ':' not in name:  # one of ours needs no check
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
  """Checks that a divergence accepts the network and returns one number.

  Args:
    measure: the divergence.
    params: the encoder's parameters.
    name: config.divergence.name.

  Raises:
    BadInput: it fails, or returns another shape or dtype.
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
  """Checks the result of a sampling; returns the cohort's ids, [M] i32.

  Args:
    ids: the result of the sampling.
    name: config.sampling.name.
    size: M.

  Raises:
    BadInput: the result is no array of M whole numbers.
  """
  ids = jnp.asarray(ids)
  if ids.shape != (size,) or not jnp.issubdtype(ids.dtype, jnp.integer):
    raise BadInput(f'sampling {name} returned {ids.dtype} of shape '
                   f'{ids.shape}; it must return {size} whole numbers, the ids '
                   'of clients')
  return ids.astype(jnp.int32)
