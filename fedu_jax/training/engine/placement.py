"""Where a federation's clients lie, and on which devices they train."""

from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from fedu_jax import devices
from fedu_jax import estimate
from fedu_jax import hosts
from fedu_jax import memory
from fedu_jax import networks
from fedu_jax import program
from fedu_jax import room
from fedu_jax.lazy import Images, Lazy
from fedu_jax.errors import BadInput
from fedu_jax.state import Online


class Place(NamedTuple):
  """Where clients lie, and the devices of those that train at once."""
  store: str  # device, host or disk
  layout: devices.Layout
  sizes: estimate.Sizes


def choose(config: ml_collections.ConfigDict, nets: networks.Nets,
           online: Online, images: Images, parts: list[np.ndarray], *,
           num_members: int) -> Place:
  """Chooses for a federation, or for several that begin together.

  Clients stay on the device if all of them train each round, at once, or if one
  device has room for all of them. Else they lie on the host.

  Args:
    config: of the federation.
    nets: its networks.
    online: what the server sends out first.
    images: [N, H, W, C] u8.
    parts: for each client, its rows of `images`.
    num_members: how many federations.

  Raises:
    BadInput: the config asks for devices that there are not, or for a store
      that cannot hold the clients or cannot do what else it asks for; or the
      devices have no room for clients that must all be there.
  """
  num_clients = len(parts)
  sampled = program.is_sampled(config, num_clients)
  cohort = config.cohort if sampled else num_clients
  # Several share a device, rather than that each is spread over all.
  wanted = '1' if config.devices == 'auto' and num_members > 1 else (
      config.devices)
  layout = devices.layout(wanted, cohort,
                          clients_per_device=config.clients_per_device,
                          devices_per_client=config.devices_per_client)
  travels = layout.num_clients < cohort or (sampled and layout.mesh is not None)
  if hosts.several() and (travels or config.store in ('host', 'disk')):
    raise BadInput('clients that come and go are for one host: set cohort and '
                   'clients_per_device to 0, and store to auto')
  groups = layout.mesh.shape[devices.AXIS] if layout.mesh else 1
  shape = images.shape[1:]
  server, client, _ = program.shapes(config, nets, online, shape)
  sizes = room.sizes_of(
      config, server, client, [len(part) for part in parts],
      image=int(np.prod(shape)),
      data=0 if isinstance(images, Lazy) else images.size,
      groups=groups, at_once=layout.padded // groups)
  here = machine(layout)
  sizes = sizes._replace(store=room.store_of(config, sizes, here))
  found = Place(sizes.store, layout, sizes)
  if sizes.store == 'device':
    check(config, found, together=1)
  return found


def check(config: ml_collections.ConfigDict, where: Place,
          compiled: jax.stages.Compiled | None = None, *, together: int,
          begun: bool = False) -> None:
  """Refuses a federation that does not fit the memory here.

  Args:
    config: of the federation.
    where: it is to run.
    compiled: its round, if that has been compiled; else only what every
      compiler must make room for is asked of the devices.
    together: federations that run as one program.
    begun: whether the arrays that its program takes are there already.

  Raises:
    BadInput: it says what is needed, what there is, and what to change.
  """
  here, sizes = machine(where.layout), where.sizes
  # What is there already is no longer free: the images, and what has begun.
  there = sizes.data
  if begun and compiled:
    there += here.shared_by * estimate.arguments(compiled)
    there += sizes.clients * sizes.state * (sizes.store == 'host')
  here = here._replace(host=min(here.host, memory.free_bytes() + there))
  room.check(config, sizes, here,
             estimate.peak_memory(compiled) if compiled else 0,
             together=together)


def machine(layout: devices.Layout) -> room.Machine:
  """The memories of this host and of its devices."""
  mine = [device for device in (layout.mesh.devices.flat if layout.mesh
                                else jax.devices()[:1])
          if device.process_index == jax.process_index()]
  shared = not own_memory()
  return room.Machine(device_bytes(), memory.host_bytes(),
                      max(1, len(mine)) if shared else 0)


def device_bytes() -> int:
  """The memory of a device; of devices that share the host's, each one's part.
  """
  return own_memory() or memory.host_bytes() // len(jax.local_devices())


def own_memory() -> int:
  """The bytes of a device that JAX may take; 0 where it does not know."""
  return (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit', 0)
