"""Chooses the store of a federation's clients and the devices that train."""

import math
from typing import NamedTuple

import jax
import numpy as np

from fedu_jax.core.state import Online
from fedu_jax.data import lazy_arrays
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import multihost
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import feeding
from fedu_jax.training.engine import memory_needs
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.recipe import Recipe

# The share of a memory that clients may take if another store is possible. The
# rest is for the compiler's temporaries and for copies.
_SHARE = 0.5


class Place(NamedTuple):
  """The store of the clients, and the layout of those that train at once."""
  store: str  # device, host or disk
  layout: device_mesh.Layout
  sizes: cost_model.Sizes


def choose(recipe: Recipe, online: Online, images: Images,
           parts: list[np.ndarray], *, num_members: int) -> Place:
  """Chooses the place of a federation, or of several that start together.

  Clients are kept on the devices if all of them train at once in each round, or
  if one device has room for all of them. Otherwise they are kept on the host,
  or on disk if the host has too little room. `recipe.store` may name one.

  Args:
    recipe: the recipe of the federation.
    online: the server's first network.
    images: [N, H, W, C] u8 or u16.
    parts: for each client, its rows of `images`.
    num_members: the number of federations.

  Raises:
    BadInput: there are too few devices, the store of the config does not fit
      its other choices, or a memory is too small.
  """
  num_clients = len(parts)
  sampled = recipe.is_sampled(num_clients)
  cohort = recipe.cohort if sampled else num_clients
  # Several federations share one device; none is sharded over several.
  kind, most = accelerators.wanted(recipe.devices)
  devices = recipe.devices if most or num_members == 1 else (
      f'{kind}:1' if kind else '1')
  layout = device_mesh.layout(devices, cohort,
                              clients_per_device=recipe.clients_per_device,
                              devices_per_client=recipe.devices_per_client)
  travels = layout.num_clients < cohort or (sampled and layout.mesh is not None)
  if multihost.several() and (travels or recipe.store in ('host', 'disk')):
    raise BadInput('clients in a store need a single host: set cohort and '
                   'clients_per_device to 0, and store to auto')
  groups = layout.mesh.shape[device_mesh.AXIS] if layout.mesh else 1
  shape = images.shape[1:]
  server, client, _ = round_program.shapes(recipe, online, shape)
  sizes = memory_needs.sizes_of(
      recipe, server, client, [len(part) for part in parts],
      image=math.prod(shape) * images.dtype.itemsize,
      data=lazy_arrays.bytes_in_memory(images),
      groups=groups, at_once=layout.padded // groups)
  here = machine(layout)
  sizes = feeding.choose(recipe, sizes, here.device)
  if sizes.chunk:
    if multihost.several():
      raise BadInput('images are fed in chunks on a single host only: set '
                     'config.feed to whole, or start one process')
    layout = device_mesh.layout(devices, cohort, clients_per_device=1)
  sizes = sizes._replace(store=store_of(recipe, sizes, here))
  found = Place(sizes.store, layout, sizes)
  if sizes.store == 'device':
    check(recipe, found, together=1)
  return found


def store_of(recipe: Recipe, sizes: cost_model.Sizes,
             machine: memory_needs.Machine) -> str:
  """Chooses where clients are kept: 'device', 'host' or 'disk'.

  Args:
    recipe: the recipe of the federation.
    sizes: its sizes.
    machine: the memories of the machine.

  Raises:
    BadInput: the store of the config does not fit its other choices, or has too
      little room.
  """
  sampled = sizes.cohort < sizes.clients
  sliced = sizes.at_once < sizes.share
  if sliced and not recipe.in_sums:
    raise BadInput(f'config.clients_per_device is {recipe.clients_per_device}, '
                   f'but aggregation {recipe.aggregation_name} needs a whole '
                   'cohort at once: set it to 0')
  travels = sliced or sizes.chunk > 0 or (
      sampled and sizes.groups * sizes.group > 1)
  if recipe.store == 'device' and travels:
    raise BadInput(
        'config.store is device, but a cohort that is drawn runs on one '
        'device there, and at once: set store to auto, or devices to 1 and '
        'clients_per_device to 0')
  if recipe.store in ('device', 'disk'):
    return recipe.store
  here = cost_model.device_memory(sizes._replace(store='device'))
  if recipe.store == 'auto' and not travels and (
      not sampled or here.value <= _SHARE * machine.device):
    return 'device'
  there = cost_model.host_memory(sizes._replace(store='host', data=0)).value
  if there > _SHARE * machine.host:
    if recipe.store == 'auto':
      return 'disk'
    raise BadInput(
        f'the state of {sizes.clients} clients takes '
        f'{host_memory.shown(there)}, more than half of the host\'s memory '
        f'({host_memory.shown(machine.host)}): set config.store to disk')
  return 'host'


def check(recipe: Recipe, where: Place,
          compiled: jax.stages.Compiled | None = None, *, together: int,
          begun: bool = False) -> None:
  """Checks that a federation fits the memory of this machine.

  Args:
    recipe: the recipe of the federation.
    where: its place.
    compiled: its compiled round; without one, `cost_model.program_at_least`
      counts.
    together: the number of federations that run as one program.
    begun: whether the arguments of the program are in memory already.

  Raises:
    BadInput: it does not fit; the message says what is needed, what there is,
      and what to change.
  """
  here, sizes = machine(where.layout), where.sizes
  # Images and arguments that are already in memory are not free any more.
  there = sizes.data
  if begun and compiled:
    there += here.shared_by * cost_model.arguments(compiled)
    there += sizes.clients * sizes.state * (sizes.store == 'host')
  here = here._replace(host=min(here.host, host_memory.free_bytes() + there))
  memory_needs.check(recipe, sizes, here,
                     cost_model.peak_memory(compiled) if compiled else 0,
                     together=together)


def machine(layout: device_mesh.Layout) -> memory_needs.Machine:
  """The memories of this host and of its devices."""
  mine = [device for device in layout.devices
          if device.process_index == jax.process_index()]
  shared = not own_memory()
  return memory_needs.Machine(device_bytes(), host_memory.host_bytes(),
                              max(1, len(mine)) if shared else 0)


def device_bytes() -> int:
  """The memory of a device; on a CPU, a device's share of the host's memory."""
  return own_memory() or host_memory.host_bytes() // len(jax.local_devices())


def own_memory() -> int:
  """The bytes of a device that JAX may take; 0 if JAX does not know."""
  return (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit', 0)
