"""Several hosts, with one process each, that run one federation together.

JAX connects the processes. In addition, each host tells the others in JAX's
key-value store that it is alive, or why it ends. JAX alone would abort without
naming the lost host.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import os
import re
import traceback
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from fedu_jax.runtime import durable_files
from fedu_jax.runtime import heartbeat
from fedu_jax.runtime import private_apis
from fedu_jax.runtime import signals
from fedu_jax.runtime import slurm
from fedu_jax.runtime.errors import BadInput, Ending

T = TypeVar('T')

_FOREVER = 7 * 24 * 3600 * 1000  # ms that a host may wait for another to score


@contextlib.contextmanager
def joined(*, coordinator: str, processes: int, process: int,
           timeout: int) -> Iterator[None]:
  """Joins the other hosts for the time of the context.

  Enter it before JAX uses a device. If the context raises an error, this
  process exits with one line: code 2 for BadInput, 1 for other errors. The
  other hosts then exit too, with code 2 or LOST.

  Args:
    coordinator: process 0's address, 'host:port'. With 'auto' JAX finds it and
      the next two (SLURM, Cloud TPU and others). '' means one host alone.
    processes: the number of processes; 0 leaves it to JAX.
    process: the number of this process; -1 leaves it to JAX.
    timeout: seconds after which a missing or silent host counts as lost.

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
    except Ending as error:  # the other hosts end by themselves too
      ending = error
    barrier('fedu_jax ended')  # the first host may still be scoring
  except BadInput as error:
    watcher.leave(BadInput.code, ' '.join(str(error).split()))
  except KeyboardInterrupt:
    watcher.leave(130, 'interrupted')
  except Exception as error:
    watcher.wait_for_all()  # if the cause is a lost host, `watcher` exits
    traceback.print_exc()
    watcher.leave(1, f'{type(error).__name__}: {" ".join(str(error).split())}')
  signals.leave_by(None)
  watcher.stop()
  if ending:
    raise ending


def _join(coordinator: str, processes: int, process: int,
          timeout: int) -> heartbeat.Watcher:
  """Joins the other hosts, and starts to watch them."""
  if processes and process >= processes:
    raise BadInput(f'config.distributed.process is {process}, but there are '
                   f'{processes} processes: 0 to {processes - 1}')
  # SIGTERM must reach our own handler, not JAX's.
  jax.config.update('jax_enable_preemption_service', False)
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  auto = coordinator == 'auto'
  with heartbeat.aborts_as(lambda said: _refusal(said, coordinator, timeout)):
    try:
      jax.distributed.initialize(
          None if auto else coordinator, processes or None,
          process if process >= 0 else None, slurm.local_gpus(os.environ),
          initialization_timeout=timeout,
          # Longer than `heartbeat` waits, because its message says more.
          heartbeat_timeout_seconds=2 * timeout + 10,
          shutdown_timeout_seconds=timeout)
      # This also finds the other hosts' devices. All hosts have come then.
      watcher = heartbeat.Watcher(
          jax.process_index(), jax.process_count(), timeout)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
      raise BadInput(f'config.distributed.coordinator is {coordinator!r}, and '
                     f'the hosts cannot be joined: {error}') from error
  watcher.start()
  return watcher


def _refusal(said: str, coordinator: str, timeout: int) -> str:
  """Returns one line on why JAX aborted while it joined hosts."""
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
  """Whether there are several hosts."""
  return jax.process_count() > 1


def first() -> bool:
  """Whether this is the first host, which prints, scores and reports."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until all hosts have called it. Use each name once."""
  if several():
    private_apis.coordination_client().wait_at_barrier(name, _FOREVER)


def any_of(here: bool) -> bool:
  """Whether a condition is true on any host. All hosts must call it."""
  if several():
    return bool(multihost_utils.process_allgather(np.array(here)).any())
  return here


def of_first(here: int) -> int:
  """Returns the first host's number on all hosts. All hosts must call it."""
  if several():
    return int(multihost_utils.broadcast_one_to_all(np.int32(here)))
  return here


def shared(hosts: Sequence[int], size: int, work: Callable[[int], bytes]
           ) -> list[bytes]:
  """Divides pieces of work over hosts; every host returns all results.

  Args:
    hosts: for each piece, the number of the host that does it.
    size: the bytes of a result.
    work: does the i-th piece.
  """
  if not several():
    return [work(i) for i in range(len(hosts))]
  found = np.zeros((len(hosts), size), np.uint8)
  for i, host in enumerate(hosts):
    if host == jax.process_index():
      found[i] = np.frombuffer(work(i), np.uint8)
  found = multihost_utils.process_allgather(found).max(0)
  return [row.tobytes() for row in found]


def together(act: Callable[[], T]) -> T:
  """Calls a function on each host; if it fails on one, all raise an error.

  Raises:
    OSError: the function raised any error except an `Ending`. Libraries raise
      various errors for a full disk.
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
  """Copies arrays that are sharded over hosts to NumPy arrays on each host."""
  if several():
    return multihost_utils.process_allgather(tree, tiled=True)
  return jax.device_get(tree)


def own_copy(tree: Any) -> Any:
  """Copies replicated arrays to the first device of this host."""
  here = jax.local_devices()[0]
  return jax.tree.map(lambda x: jax.device_put(
      x.addressable_data(0) if several() else x, here), tree)
