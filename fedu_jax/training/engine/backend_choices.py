"""How a step is compiled for each backend, where the whole program chooses.

Layers that compute in two ways choose in their own modules, by
`jax.lax.platform_dependent`: convolutions, BatchNorm and its ReLU.
No choice changes what is computed, except for the order of sums. Each was made
by counting kernels and bytes of the compiled step; see benchmarks/RECORDS.md.
"""

import re
from typing import NamedTuple

import jax


class Choices(NamedTuple):
  """The choices for a backend."""
  views_together: bool  # whether both views go through a network at once
  packed: bool  # whether small arrays are joined from step to step
  rounded: bool  # whether a step leaves rounded kernels to the next one
  bandwidth: float = 0.0  # bytes a second, see `client_execution`; 0: unknown


# In turn, a CPU keeps one view's maps in its cache; it starts no kernels. On a
# TPU, views together move 1.7 times as many bytes.
_PLAIN = Choices(views_together=False, packed=False, rounded=False)
_BY_BACKEND = {
    'gpu': Choices(views_together=True, packed=True, rounded=True),
}

# As the files of `fedu_jax.plan` have it. Others are left out: a CPU and a TPU
# start no kernels from the host.
_BANDWIDTHS = {'A100': 2.039e12, 'H100': 3.35e12, 'H200': 4.8e12, 'L4': 300e9}


def choices(backend: str = '', device: str = '') -> Choices:
  """Returns the choices for a backend and a device.

  Args:
    backend: 'cpu', 'gpu' or 'tpu'; '' for the one that JAX uses here.
    device: the full name of its devices, such as 'NVIDIA H100 80GB HBM3'; ''
      for those here, or if `backend` is given, for devices of no known name.
  """
  if not backend:
    backend, device = jax.default_backend(), jax.devices()[0].device_kind
  found = _BY_BACKEND.get(backend, _PLAIN)
  if backend != 'gpu':
    return found
  words = re.split(r'\W+', device)
  return found._replace(bandwidth=next(
      (bandwidth for name, bandwidth in _BANDWIDTHS.items() if name in words),
      0.0))
