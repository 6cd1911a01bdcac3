"""Checks that a program of a score fits the memory, by its compiler's figures.
"""

from typing import Any

import jax

from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput

_CHANGE = 'what is trained stays; score fewer or smaller images'


def run(program: Any, what: str, *args: Any, **static: Any) -> Any:
  """Runs a jitted program, if the memory is enough for what it adds.

  It is compiled once, for the check and for the run.

  Args:
    program: a result of `jax.jit`.
    what: the thing that needs the memory; the first words of the message.
    *args: its arrays. They are in memory already.
    **static: its static arguments.

  Returns:
    The result of the program.

  Raises:
    BadInput: its results and temporaries take more than is free.
  """
  if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
    found: Any = program.lower(*args, **static).compile().memory_analysis()
    if found:  # some backends do not say
      _refuse(found.temp_size_in_bytes + found.output_size_in_bytes, what)
  return program(*args, **static)


def _refuse(size: int, what: str) -> None:
  """Raises an error if a device has less memory free than this size."""
  device = jax.local_devices()[0]
  stats = device.memory_stats()
  if not stats or 'bytes_limit' not in stats:
    host_memory.refuse(size, what, _CHANGE)
    return
  free = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  if size > free:
    raise BadInput(
        f'{what} takes {host_memory.shown(size)} of a {device.device_kind}, of '
        f'which {host_memory.shown(free)} are free: {_CHANGE}')
