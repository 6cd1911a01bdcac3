"""Where a federation's clients lie, and on which devices they train."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fedu_jax import devices
from fedu_jax import hosts
from fedu_jax import memory
from fedu_jax import networks
from fedu_jax import program
from fedu_jax import settings
from fedu_jax import trees
from fedu_jax.errors import BadInput
from fedu_jax.lazy import Images
from fedu_jax.state import Online

# Share of a memory that clients who do not train may take: the rest is for
# what training needs, and for the copies that are made on the way.
_SHARE = 0.5


class Place(NamedTuple):
  """Where clients lie, and the devices of those that train at once."""
  store: str  # device, host or disk
  layout: devices.Layout


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
      that cannot hold the clients or cannot do what else it asks for.
  """
  num_clients = len(parts)
  sampled = program.is_sampled(config, num_clients)
  cohort = config.cohort if sampled else num_clients
  # Several share a device, rather than that each is spread over all.
  wanted = '1' if config.devices == 'auto' and num_members > 1 else (
      config.devices)
  each = config.clients_per_device
  layout = devices.layout(wanted, cohort, clients_per_device=each,
                          devices_per_client=config.devices_per_client)
  sliced = layout.num_clients < cohort
  travels = sliced or (sampled and layout.mesh is not None)
  if hosts.several() and (travels or config.store in ('host', 'disk')):
    raise BadInput('clients that come and go are for one host: set cohort and '
                   'clients_per_device to 0, and store to auto')
  state, data = _bytes(config, nets, online, images, parts)
  store = store_of(
      config, num_clients, sliced=sliced, meshed=layout.mesh is not None,
      state=state, data=data, device_memory=device_bytes(),
      host_memory=memory.host_bytes())
  if store == 'device':
    _check_room(state)
  return Place(store, layout)


def store_of(config: ml_collections.ConfigDict, num_clients: int, *,
             sliced: bool, meshed: bool, state: int, data: int,
             device_memory: int, host_memory: int) -> str:
  """Chooses where clients lie: 'device', 'host' or 'disk'.

  Args:
    config: of the federation.
    num_clients: K.
    sliced: whether a cohort trains in slices.
    meshed: whether it trains on several devices.
    state: bytes of all clients' state.
    data: bytes of all their images.
    device_memory: a device's memory.
    host_memory: the host's.

  Raises:
    BadInput: as `choose`.
  """
  sampled = program.is_sampled(config, num_clients)
  if sliced and not settings.takes(config, 'aggregation', 'add'):
    raise BadInput(f'config.clients_per_device is {config.clients_per_device}, '
                   f'but aggregation {config.aggregation.name} needs a whole '
                   'cohort at once: set it to 0')
  travels = sliced or (sampled and meshed)
  if config.store == 'device' and travels:
    raise BadInput(
        'config.store is device, but a cohort that is drawn runs on one '
        'device there, and at once: set store to auto, or devices to 1 and '
        'clients_per_device to 0')
  if config.store in ('device', 'disk'):
    return config.store
  if config.store == 'auto' and not travels and (
      not sampled or state + data <= _SHARE * device_memory):
    return 'device'
  if state > _SHARE * host_memory:
    if config.store == 'auto':
      return 'disk'
    raise BadInput(
        f'the state of {num_clients} clients takes {state / 1e9:.0f} GB, more '
        f'than half of the host\'s memory ({host_memory / 1e9:.0f} GB): set '
        'config.store to disk')
  return 'host'


def _check_room(state: int) -> None:
  """Refuses clients whose state no memory here can hold."""
  room = max(memory.host_bytes(), len(jax.devices()) * device_bytes())
  if state > room:
    raise BadInput(
        f'the state of all clients takes {state / 1e9:.0f} GB, more than all '
        f'memory here ({room / 1e9:.0f} GB): choose a smaller config.model or '
        'learner.queue_size, or draw a cohort with config.store disk')


def _bytes(config, nets, online, images, parts) -> tuple[int, int]:
  """What all clients' state takes, and all their images, in bytes."""
  def one():
    return program.init_state(
        config, nets, online, np.ones(1), jax.random.key(0),
        jnp.zeros((1, *images.shape[1:])))[1]
  most = max(map(len, parts)) * int(np.prod(images.shape[1:]))
  return (len(parts) * trees.num_bytes(jax.eval_shape(one)),
          len(parts) * most)


def device_bytes() -> int:
  """The memory of one device; the host's where JAX does not know."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('bytes_limit', memory.host_bytes())
