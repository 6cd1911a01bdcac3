"""Computes the memory that a federation needs, and checks that it is there.

The same formulas are used before a run compiles its round, after that, and by
`fedu_jax.plan`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedu_jax.core import trees
from fedu_jax.core.state import ClientState, ServerState
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.recipe import Recipe


class Machine(NamedTuple):
  """The memories that a federation must fit, in bytes."""
  device: float  # of one device
  host: float
  shared_by: int = 0  # the devices that use the host's memory, on a CPU


def sizes_of(recipe: Recipe, server: ServerState,
             client: ClientState, lengths: Sequence[int], *, image: int,
             data: int, groups: int, at_once: int) -> cost_model.Sizes:
  """Collects the sizes that the costs of a federation depend on.

  Args:
    recipe: the recipe of the federation.
    server: the server, or its shapes.
    client: one client, or its shapes.
    lengths: the number of images of each client.
    image: bytes of an image.
    data: bytes of all images on the host.
    groups: the number of groups of devices.
    at_once: the most clients that train at once on each group.

  Returns:
    The sizes, with an empty `store`.
  """
  clients, batch = len(lengths), recipe.batch_size
  sampled = recipe.is_sampled(clients)
  cohort = recipe.cohort if sampled else clients
  share = -(-cohort // groups)
  steps = [recipe.local_epochs * (length // batch) for length in lengths]
  worked: float
  if recipe.masks_steps:  # a skipped step takes as long as any other
    worked = share * max(steps)
  elif sampled:
    worked = share * float(np.mean(steps))
  else:
    worked = max(sum(steps[i:i + share]) for i in range(0, clients, share))
  sent = round_program.sent(recipe, server, client, clients)
  return cost_model.Sizes(
      clients, cohort, groups, recipe.devices_per_client, share,
      min(at_once, share), '', trees.num_bytes(client), sent.up, sent.down,
      trees.num_bytes(server.online), trees.num_bytes(server),
      max(lengths) * image, data, batch * worked, worked, recipe.rounds,
      recipe.checkpoint_keep, recipe.checkpoint_every, batch * image)


def lacking(sizes: cost_model.Sizes, machine: Machine, program: int = 0, *,
            together: int = 1) -> list[str]:
  """Returns a text for each memory that is too small.

  Args:
    sizes: the sizes of the federation, with its store.
    machine: the memories of the machine.
    program: bytes of the compiled round on a device; 0 before it is compiled,
      for `cost_model.program_at_least`.
    together: the number of federations that run as one program.
  """
  device = cost_model.device_memory(sizes, program)
  host = cost_model.host_memory(sizes)
  if not program:
    device = device._replace(value=together * device.value)
  if not machine.shared_by:
    return (cost_model.exceeded(device, machine.device)
            + cost_model.exceeded(host, machine.host))
  # On a CPU, clients on the device are in the host's memory. Copies for
  # checkpoints are made between rounds, and are smaller than a round's needs.
  other = sizes.data if sizes.store == 'device' else host.value
  each = device._replace(what='memory of the host',
                         value=machine.shared_by * device.value + other)
  return cost_model.exceeded(each, machine.host)


def check(recipe: Recipe, sizes: cost_model.Sizes,
          machine: Machine, program: int = 0, *, together: int = 1) -> None:
  """Checks that a federation fits the memory. Arguments as in `lacking`.

  Raises:
    BadInput: it does not; the message says what is needed, what there is, and
      what to change.
  """
  if short := lacking(sizes, machine, program, together=together):
    raise BadInput('a round needs more memory than there is: '
                   f'{"" if program else "at least "}{", ".join(short)}: '
                   f'{change(recipe, sizes, machine, program, together)}')


def change(recipe: Recipe, sizes: cost_model.Sizes,
           machine: Machine, program: int = 0, together: int = 1) -> str:
  """Returns advice that makes a round smaller, the most effective first.

  Arguments as in `lacking`.
  """
  found = []
  if together > 1:
    found.append('run fewer seeds together')
  drawn = sizes.cohort < sizes.clients
  on_device = sizes.store == 'device'
  if sizes.store == 'host':
    found.append('set config.store to disk')
  if drawn and on_device and sizes.cohort < sizes.clients / 2:
    found.append('set config.store to host or disk')
  if sizes.chunk > sizes.batch:
    found.append('lower config.chunk_steps to 1')
  elif not sizes.chunk and sizes.images > sizes.state:
    found.append('set config.feed to chunks')
  if sizes.at_once > 1:
    if recipe.in_sums:
      found.append('set config.clients_per_device below '
                   f'{sizes.at_once}, with config.store host or disk')
    if recipe.execution == 'vmap':
      found.append('set config.execution to map')
    if not machine.shared_by:  # more CPU devices do not add memory
      found.append('use more devices')
    found.append('lower config.cohort' if drawn else 'draw a config.cohort')
  model = 'choose a smaller config.model'
  if recipe.has_queue:
    model += ' or learner.queue_size'
  batch = 'lower config.batch_size'
  if recipe.dtype != 'bfloat16':
    batch += ', or set config.model.dtype to bfloat16'
  found += [batch, model] if program else [model]
  return '; or '.join(found)
