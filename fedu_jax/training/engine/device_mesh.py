"""The mesh of devices, and the sharding of a federation's arrays over it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from fedu_jax.runtime import accelerators
from fedu_jax.runtime.errors import BadInput

AXIS, DATA = 'clients', 'data'
EVERYWHERE, BY_CLIENT = PartitionSpec(), PartitionSpec(AXIS)


class Layout(NamedTuple):
  """The number of clients, all or those that train at once, and their devices.

  A mesh has two axes. Clients are sharded over AXIS, the groups of devices.
  Each batch of a client is sharded over DATA, the devices of a group.
  """
  num_clients: int
  mesh: Mesh | None  # None: everything is on one device
  device: jax.Device | None = None  # that device; None: the first of all

  @property
  def padded(self) -> int:
    """The length of the clients' axis: the same number on each group."""
    share = self.mesh.shape[AXIS] if self.mesh else 1
    return -(-self.num_clients // share) * share

  def sharding(self, spec: PartitionSpec) -> jax.sharding.Sharding:
    """The sharding of arrays: EVERYWHERE, or BY_CLIENT on the first axis."""
    if self.mesh is None:
      return jax.sharding.SingleDeviceSharding(
          self.device or jax.devices()[0])
    return NamedSharding(self.mesh, spec)

  @property
  def devices(self) -> list[jax.Device]:
    """The devices that train, of all hosts."""
    return list(self.mesh.devices.flat) if self.mesh else jax.devices()[:1]

  def hosts(self) -> list[int]:
    """The host that has each client's images; the first if several have."""
    found = [-1] * self.padded
    places: Any = self.sharding(BY_CLIENT).devices_indices_map((self.padded,))
    for device, (rows,) in places.items():
      for k in range(*rows.indices(self.padded)):
        if found[k] < 0 or device.process_index < found[k]:
          found[k] = device.process_index
    return found[:self.num_clients]


def spread(num_clients: int, most: int) -> tuple[int, int]:
  """Divides clients evenly over at most `most` groups of devices.

  Returns:
    The number of groups with clients, and the most clients of a group.
  """
  share = -(-num_clients // most)
  return -(-num_clients // share), share


def layout(devices: str, num_clients: int, *, clients_per_device: int = 0,
           devices_per_client: int = 1) -> Layout:
  """Chooses the devices for clients that train.

  Args:
    devices: the value of `config.devices`, which may name a kind and the most
      devices. Devices without a client are not used.
    num_clients: the number of clients that train in a round.
    clients_per_device: the clients at once on each group of devices; 0 for all.
    devices_per_client: the devices of a group.

  Returns:
    The layout of the clients that train at once.

  Raises:
    BadInput: there are too few devices, or none of that kind, or hosts cannot
      share the clients.
  """
  accelerators.see(devices)
  own = [[d for d in jax.devices() if d.process_index == i]
         for i in range(jax.process_count())]
  hosts, each = len(own), min(map(len, own))
  count = accelerators.wanted(devices).most or hosts * each
  if count > hosts * each:
    raise BadInput(f'config.devices is {count}, but JAX sees {hosts * each} '
                   'of them: at most that, or auto')
  if devices_per_client > count:
    raise BadInput(f'config.devices_per_client is {devices_per_client}, but '
                   f'there are {count} devices: at most that')
  most = count // devices_per_client
  groups, share = spread(num_clients, most)
  # Each host must have the same number of groups, some maybe of padding alone.
  while groups * devices_per_client % hosts and groups < most:
    groups += 1
  here, left = divmod(groups * devices_per_client, hosts)
  if left or hosts > num_clients * devices_per_client:
    raise BadInput(f'{num_clients} clients cannot be spread evenly over '
                   f'{hosts} processes and {count} devices: start fewer '
                   'processes, or choose another config.devices')
  mesh = None if (groups, devices_per_client) == (1, 1) else _mesh(
      [d for mine in own for d in mine[:here]], groups)
  return Layout(min(num_clients, (clients_per_device or share) * groups), mesh)


def layout_of(devices: Sequence[jax.Device], num_clients: int,
              groups: int) -> Layout:
  """Lays clients out on given devices, which may only be described.

  Args:
    devices: the devices, all of which are used.
    num_clients: the number of clients that train at once.
    groups: the number of groups of devices.
  """
  if len(devices) == 1:
    return Layout(num_clients, None, devices[0])
  return Layout(num_clients, _mesh(devices, groups))


def _mesh(devices: Sequence[jax.Device], groups: int) -> Mesh:
  # Not by `jax.make_mesh`: it refuses some of the chips of a TPU's host.
  return Mesh(np.array(devices).reshape(groups, -1), (AXIS, DATA),
              axis_types=(AxisType.Auto,) * 2)


def over_clients(fn: Callable[..., Any], mesh: Mesh, *, in_specs: Any,
                 out_specs: Any) -> Callable[..., Any]:
  """Makes each group of devices run `fn` on its own clients.

  Within a group, the compiler shards the work as the batches are sharded.
  """
  # No check of varying values: scans start from constants, which do not vary.
  return jax.shard_map(fn, mesh=mesh, check_vma=False, axis_names={AXIS},
                       in_specs=in_specs, out_specs=out_specs)


def by_data(index: jax.Array) -> jax.Array:
  """Shards batches [..., B] over a group's devices, within `over_clients`."""
  spec = PartitionSpec(*(None,) * (index.ndim - 1), DATA)
  return jax.lax.with_sharding_constraint(index, spec)
