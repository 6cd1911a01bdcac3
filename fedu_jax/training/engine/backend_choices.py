"""How a step is compiled for each backend, where the whole program chooses.

Layers that compute in two ways choose in their own modules, by
`jax.lax.platform_dependent`: convolutions, BatchNorm and its ReLU.
No choice changes what is computed, except for the order of sums. Each was made
by counting kernels and bytes of the compiled step; see benchmarks/RECORDS.md.
"""

from typing import NamedTuple

import jax


class Choices(NamedTuple):
  """The choices for a backend."""
  views_together: bool  # whether both views go through a network at once
  packed: bool  # whether small arrays are joined from step to step


# In turn, a CPU keeps one view's maps in its cache; it starts no kernels. On a
# TPU, views together move 1.7 times as many bytes.
_PLAIN = Choices(views_together=False, packed=False)
_BY_BACKEND = {'gpu': Choices(views_together=True, packed=True)}


def choices(backend: str = '') -> Choices:
  """Returns the choices for a backend.

  Args:
    backend: 'cpu', 'gpu' or 'tpu'; '' for the one that JAX uses here.
  """
  return _BY_BACKEND.get(backend or jax.default_backend(), _PLAIN)
