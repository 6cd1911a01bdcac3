"""Chooses whether a client's images are on the device as a whole or in chunks.
"""

from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine.recipe import Recipe

FEEDS = ('auto', 'whole', 'chunks')

_MOST = 2**31  # bytes of a chunk
# The share of a device's free memory for a chunk. Two are there at once, and
# the rest is for the working memory of a step.
_SHARE = 1 / 8


def choose(recipe: Recipe, sizes: cost_model.Sizes,
           device: float) -> cost_model.Sizes:
  """Sets the bytes of a chunk of a client's images, if there are chunks.

  'auto' chooses chunks if one client with all its images does not fit a device,
  and with the images of a step it does.

  Args:
    recipe: the recipe of the federation.
    sizes: its sizes.
    device: bytes of a device.

  Returns:
    The sizes; with chunks, of one client at a time on each device.

  Raises:
    BadInput: chunks do not go with another choice of the config.
  """
  if recipe.feed == 'whole':
    return sizes
  alone = sizes._replace(store='host', at_once=1)
  needed = cost_model.device_memory(alone)
  least = cost_model.device_memory(alone._replace(chunk=sizes.batch))
  if recipe.feed == 'auto' and not least.value <= device < needed.value:
    return sizes
  if reason := _excluded(recipe, sizes):
    why = 'config.feed is chunks' if recipe.feed == 'chunks' else (
        'a client with all its images does not fit a device '
        f'({cost_model.of_bytes(needed.value)} of '
        f'{cost_model.of_bytes(device)}), and its images would be fed in '
        'chunks')
    raise BadInput(f'{why}, but {reason}')
  return alone._replace(
      store='', chunk=sizes.batch * _steps(recipe, sizes, device))


def _excluded(recipe: Recipe, sizes: cost_model.Sizes) -> str:
  """Says what does not go with chunks, and what to do; '' if nothing."""
  if recipe.execution == 'vmap':
    return ('clients would train at once on a device: set config.execution to '
            'map')
  if recipe.devices_per_client > 1:
    return ('devices would share batches: set config.devices_per_client to 1')
  if recipe.clients_per_device > 1:
    return ('a device then trains one client at a time: set '
            'config.clients_per_device to 0')
  if recipe.store == 'device':
    return ('clients are then kept on the host or on disk: set config.store to '
            'auto')
  if sizes.share > 1 and not recipe.in_sums:
    return (f'aggregation {recipe.aggregation_name} needs a whole cohort at '
            'once: use as many devices as clients train in a round')
  return ''


def _steps(recipe: Recipe, sizes: cost_model.Sizes, device: float) -> int:
  """Returns the steps of a chunk."""
  steps = recipe.local_epochs * (sizes.images // sizes.batch)
  if recipe.chunk_steps:
    return min(recipe.chunk_steps, steps)
  others = cost_model.device_memory(
      sizes._replace(store='host', at_once=1, chunk=1)).value
  room = min(_MOST, _SHARE * max(0, device - others))
  most = max(1, min(steps, int(room // sizes.batch)))
  return -(-steps // -(-steps // most))  # chunks of the same length, nearly
