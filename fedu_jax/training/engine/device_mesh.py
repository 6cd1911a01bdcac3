"""Clients spread over devices: a mesh, and where a federation's arrays lie."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fedu_jax.runtime.errors import BadInput

AXIS, DATA = 'clients', 'data'
EVERYWHERE, BY_CLIENT = PartitionSpec(), PartitionSpec(AXIS)


class Layout(NamedTuple):
  """How many clients there are, or train at once, and their devices.

  A mesh has the axes AXIS, of groups of devices that share the clients, and
  DATA, of the devices of a group, which share each batch of a client.
  """
  num_clients: int
  mesh: Mesh | None  # None: all on the first device

  @property
  def padded(self) -> int:
    """The clients that arrays have room for: as many on each group."""
    share = self.mesh.shape[AXIS] if self.mesh else 1
    return -(-self.num_clients // share) * share

  def sharding(self, spec: PartitionSpec) -> jax.sharding.Sharding:
    """Where an array lies: EVERYWHERE, or BY_CLIENT along its first axis."""
    if self.mesh is None:
      return jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return NamedSharding(self.mesh, spec)

  def hosts(self) -> list[int]:
    """The host that has each client's images; the first, where several do."""
    found = [-1] * self.padded
    places: Any = self.sharding(BY_CLIENT).devices_indices_map((self.padded,))
    for device, (rows,) in places.items():
      for k in range(*rows.indices(self.padded)):
        if found[k] < 0 or device.process_index < found[k]:
          found[k] = device.process_index
    return found[:self.num_clients]


def spread(num_clients: int, most: int) -> tuple[int, int]:
  """Spreads clients evenly over at most so many groups of devices.

  Returns:
    How many groups have clients, and how many each has at most.
  """
  share = -(-num_clients // most)
  return -(-num_clients // share), share


def layout(devices: str, num_clients: int, *, clients_per_device: int = 0,
           devices_per_client: int = 1) -> Layout:
  """Chooses the devices for clients that are to train.

  Args:
    devices: how many at most, as a text; 'auto', all that are visible. None is
      left without a client.
    num_clients: how many train in a round.
    clients_per_device: how many at once on each device, or group of them; 0,
      as many as it takes.
    devices_per_client: how many form a group.

  Returns:
    The layout of those that train at once.

  Raises:
    BadInput: more devices are wanted than there are, or than can share.
  """
  own = [[d for d in jax.devices() if d.process_index == i]
         for i in range(jax.process_count())]
  hosts, each = len(own), min(map(len, own))
  count = hosts * each if devices == 'auto' else int(devices)
  if count > hosts * each:
    raise BadInput(f'config.devices is {count}, but JAX sees {hosts * each} '
                   'of them: at most that, or auto')
  if devices_per_client > count:
    raise BadInput(f'config.devices_per_client is {devices_per_client}, but '
                   f'there are {count} devices: at most that')
  most = count // devices_per_client
  groups, share = spread(num_clients, most)
  # Each host has a part in rounds, if only of padding, and the same.
  while groups * devices_per_client % hosts and groups < most:
    groups += 1
  here, left = divmod(groups * devices_per_client, hosts)
  if left or hosts > num_clients * devices_per_client:
    raise BadInput(f'{num_clients} clients cannot be spread evenly over '
                   f'{hosts} processes and {count} devices: start fewer '
                   'processes, or choose another config.devices')
  shape = groups, devices_per_client
  mesh = None if shape == (1, 1) else jax.make_mesh(
      shape, (AXIS, DATA), axis_types=(AxisType.Auto,) * 2,
      devices=[d for mine in own for d in mine[:here]])
  return Layout(min(num_clients, (clients_per_device or share) * groups), mesh)


def over_clients(fn: Callable[..., Any], mesh: Mesh, *, in_specs: Any,
                 out_specs: Any) -> Callable[..., Any]:
  """Makes `fn` what each group of devices does with its own clients.

  What a group does is spread over its devices by the compiler, as the sharding
  of its batches has it.
  """
  # Not checked, since scans start from constants, which do not vary.
  return jax.shard_map(fn, mesh=mesh, check_vma=False, axis_names={AXIS},
                       in_specs=in_specs, out_specs=out_specs)


def by_data(index: jax.Array) -> jax.Array:
  """Spreads batches [..., B] over a group's devices, within `over_clients`."""
  spec = PartitionSpec(*(None,) * (index.ndim - 1), DATA)
  return jax.lax.with_sharding_constraint(index, spec)
