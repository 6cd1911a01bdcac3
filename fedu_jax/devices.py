"""Clients spread over devices: a mesh, and where a federation's arrays lie."""

from typing import NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fedu_jax.errors import BadInput

AXIS = 'clients'
EVERYWHERE, BY_CLIENT = PartitionSpec(), PartitionSpec(AXIS)


class Layout(NamedTuple):
  """How many clients there are, and the devices that share them."""
  num_clients: int
  mesh: Mesh | None  # None: all on the first device

  @property
  def padded(self) -> int:
    """The clients that arrays have room for: as many on each device."""
    share = self.mesh.size if self.mesh else 1
    return -(-self.num_clients // share) * share

  def sharding(self, spec: PartitionSpec) -> jax.sharding.Sharding:
    """Where an array lies: EVERYWHERE, or BY_CLIENT along its first axis."""
    if self.mesh is None:
      return jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return NamedSharding(self.mesh, spec)


def layout(devices: str, num_clients: int, *, sampled: bool) -> Layout:
  """Chooses the devices for a federation.

  Args:
    devices: how many at most, as a text; 'auto', all that are visible. None is
      left without a client.
    num_clients: K.
    sampled: whether each round trains a cohort of them only, which so far runs
      on one device.

  Raises:
    BadInput: more are wanted than there are, or several for a cohort.
  """
  if jax.process_count() > 1:
    return _over_hosts(devices, num_clients, sampled=sampled)
  visible = jax.devices()
  if devices == 'auto':
    count = 1 if sampled else len(visible)
  else:
    count = int(devices)
    if count > len(visible):
      raise BadInput(f'config.devices is {count}, but JAX sees {len(visible)} '
                     'of them: at most that, or auto')
    if sampled and count > 1:
      raise BadInput(f'config.devices is {count}, but a cohort that is drawn '
                     'runs on one: set devices to 1 or auto, or cohort to 0')
  share = -(-num_clients // count)
  count = -(-num_clients // share)
  mesh = None if count == 1 else _mesh(visible[:count])
  return Layout(num_clients, mesh)


def _mesh(chosen: list[jax.Device]) -> Mesh:
  return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,),
                       devices=chosen)


def _over_hosts(devices: str, num_clients: int, *, sampled: bool) -> Layout:
  """Chooses as many devices of each host, so that each has a part in rounds.

  Where clients do not divide evenly, the last hosts may hold padding alone.
  """
  hosts = jax.process_count()
  if sampled:
    raise BadInput('a cohort that is drawn runs on one host: set cohort to 0')
  if hosts > num_clients:
    raise BadInput(f'there are {hosts} processes for {num_clients} clients: at '
                   'most one a client')
  own = [[d for d in jax.devices() if d.process_index == i]
         for i in range(hosts)]
  each = min(map(len, own))
  if devices == 'auto':
    share = -(-num_clients // (hosts * each))
    each = -(-num_clients // (share * hosts))
  else:
    wanted = int(devices)
    if wanted % hosts or wanted > hosts * each:
      raise BadInput(f'config.devices is {devices}, on {hosts} hosts: a '
                     f'multiple of that, up to {hosts * each}, or auto')
    each = wanted // hosts
  return Layout(num_clients, _mesh([d for x in own for d in x[:each]]))
