"""Several processes, on as many hosts, that run one federation together.

JAX joins them. Beside it each host tells the others, in JAX's key-value store,
that it lives or why it ends: JAX alone would name nobody, and abort.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import re
import traceback
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput, Ending
from fedu_jax.runtime import heartbeat
from fedu_jax.runtime import private_apis
from fedu_jax.runtime import signals

T = TypeVar('T')

_FOREVER = 7 * 24 * 3600 * 1000  # ms, that a host may wait for another's scores


@contextlib.contextmanager
def joined(*, coordinator: str, processes: int, process: int,
           timeout: int) -> Iterator[None]:
  """Joins the other hosts, for as long as the context lasts.

  To be entered before JAX touches a device. If the block raises, this process
  ends here, with a line that says why: code 2 for BadInput, 1 for others. The
  hosts that it leaves behind end too, with code 2 or LOST.

  Args:
    coordinator: process 0's address, 'host:port'; 'auto' leaves it and what
      else is not given to JAX, which knows SLURM, Cloud TPU and others; '',
      there are no other hosts.
    processes: how many there are; 0 leaves it to JAX.
    process: which of them this is; -1 leaves it to JAX.
    timeout: seconds after which a host that does not come, or is not heard of,
      is given up.

  Raises:
    BadInput: the hosts cannot be joined.
  """
  if not coordinator:
    if processes or process >= 0:
      raise BadInput('config.distributed.processes or process is set, but no '
                     'coordinator: give process 0\'s host:port, or auto')
    yield
    return
  watcher = _join(coordinator, processes, process, timeout)
  signals.leave_by(watcher.leave)
  ending = None
  try:
    try:
      yield
    except BadInput:
      raise
    except Ending as error:  # the others come to an end as well, by themselves
      ending = error
    barrier('fedu_jax ended')  # the first may still be scoring
  except BadInput as error:
    watcher.leave(BadInput.code, ' '.join(str(error).split()))
  except KeyboardInterrupt:
    watcher.leave(130, 'interrupted')
  except Exception as error:
    watcher.wait_for_all()  # or it was a lost host, of which `watcher` tells
    traceback.print_exc()
    watcher.leave(1, f'{type(error).__name__}: {" ".join(str(error).split())}')
  signals.leave_by(None)
  watcher.stop()
  if ending:
    raise ending


def _join(coordinator: str, processes: int, process: int,
          timeout: int) -> heartbeat.Watcher:
  """Does what `joined` says, and begins to watch the others."""
  if processes and process >= processes:
    raise BadInput(f'config.distributed.process is {process}, but there are '
                   f'{processes} processes: 0 to {processes - 1}')
  # A host that is told to stop shall stop, rather than tell JAX of it.
  jax.config.update('jax_enable_preemption_service', False)
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  auto = coordinator == 'auto'
  with heartbeat.aborts_as(lambda said: _refusal(said, coordinator, timeout)):
    try:
      jax.distributed.initialize(
          None if auto else coordinator, processes or None,
          process if process >= 0 else None, initialization_timeout=timeout,
          # Longer than `watch` waits: it says more.
          heartbeat_timeout_seconds=2 * timeout + 10,
          shutdown_timeout_seconds=timeout)
      # Meets the others' devices, too: from here on, all have come.
      watcher = heartbeat.Watcher(
          jax.process_index(), jax.process_count(), timeout)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
      raise BadInput(f'config.distributed.coordinator is {coordinator!r}, and '
                     f'the hosts cannot be joined: {error}') from error
  watcher.start()
  return watcher


def _refusal(said: str, coordinator: str, timeout: int) -> str:
  """Says in a line why JAX aborted while it joined hosts."""
  if 'different incarnation' in said or 'already in error' in said:
    reason = ('two processes have the same config.distributed.process, or one '
              'of an earlier start still runs')
  elif 'Unexpected task' in said:
    reason = 'hosts differ in config.distributed.processes'
  elif 'DEADLINE_EXCEEDED' in said or 'Deadline Exceeded' in said:
    reason = (f'in {timeout} s nobody answered there, or not all processes '
              'came, or one came twice')
  else:
    found = re.search(r'absl::Status: (.*)', said)
    reason = found[1][:200] if found else 'JAX gave no reason'
  return (f'config.distributed.coordinator is {coordinator!r}, and the hosts '
          f'cannot be joined: {reason}')


def several() -> bool:
  """Whether this is one of several hosts."""
  return jax.process_count() > 1


def first() -> bool:
  """Whether this host is the one that prints, scores and writes reports."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until all hosts are here. Each name serves once."""
  if several():
    private_apis.coordination_client().wait_at_barrier(name, _FOREVER)


def any_of(here: bool) -> bool:
  """Whether something is so on any host; all must ask, and all hear the same.
  """
  if several():
    return bool(multihost_utils.process_allgather(np.array(here)).any())
  return here


def of_first(here: int) -> int:
  """A number of the first host, on all of them."""
  if several():
    return int(multihost_utils.broadcast_one_to_all(np.int32(here)))
  return here


def shared(whose: Sequence[int], size: int, work: Callable[[int], bytes]
           ) -> list[bytes]:
  """Does numbered pieces of work, each on one host; all return all results.

  Args:
    whose: the host of each piece, counted from 0.
    size: bytes of a result.
    work: does the i-th piece.
  """
  if not several():
    return [work(i) for i in range(len(whose))]
  found = np.zeros((len(whose), size), np.uint8)
  for i, host in enumerate(whose):
    if host == jax.process_index():
      found[i] = np.frombuffer(work(i), np.uint8)
  found = multihost_utils.process_allgather(found).max(0)
  return [row.tobytes() for row in found]


def together(act: Callable[[], T]) -> T:
  """Does something on each host, which fails on all if it does on one.

  Raises:
    OSError: it failed. Whatever it was: libraries have errors of their own for
      a full disk.
  """
  error = None
  try:
    done = act()
  except Ending:
    raise
  except Exception as caught:
    error = caught
  if any_of(error is not None):
    raise OSError(durable_files.reason(error) if error else 'on another host'
                  ) from error
  return done


def gather(tree: Any) -> Any:
  """Arrays that lie on devices of all hosts, as NumPy's on each."""
  if several():
    return multihost_utils.process_allgather(tree, tiled=True)
  return jax.device_get(tree)


def own_copy(tree: Any) -> Any:
  """Arrays that are whole on each device, on this host's first one alone."""
  here = jax.local_devices()[0]
  return jax.tree.map(lambda x: jax.device_put(
      x.addressable_data(0) if several() else x, here), tree)
