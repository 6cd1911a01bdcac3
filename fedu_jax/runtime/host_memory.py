"""The memory that this process may use, and errors when it is too little.

The limits are those of the host, of control groups (versions 1 and 2, as
containers and SLURM set them), and of `ulimit`.
"""

from collections.abc import Iterator
import contextlib
import errno
import pathlib
import re
import resource
from typing import NamedTuple

import psutil

from fedu_jax.runtime import memory_texts
from fedu_jax.runtime.errors import BadInput, Ending, OutOfMemory

_ROOT = pathlib.Path('/')
# Texts of libraries' errors when memory runs out; the errors' classes differ.
_SAID = ('(?i)RESOURCE_EXHAUSTED|out of memory|bad_alloc|unable to alloc|'
         'cannot allocate memory|_ALLOC_FAILED')


class Limit(NamedTuple):
  """A limit on memory, and the memory in use, in bytes."""
  total: int
  used: int


def host_bytes(root: pathlib.Path = _ROOT) -> int:
  """Returns the smallest limit on this process's memory, in bytes.

  Args:
    root: the root of the file system with the control groups.
  """
  return min(limit.total for limit in _limits(root))


def free_bytes(root: pathlib.Path = _ROOT) -> int:
  """Returns the memory that this process can still take, in bytes.

  The system's cache of files counts as free. Swap does not count.

  Args:
    root: the root of the file system with the control groups.
  """
  return max(0, min(limit.total - limit.used for limit in _limits(root)))


def _limits(root: pathlib.Path) -> Iterator[Limit]:
  host = psutil.virtual_memory()
  yield Limit(host.total, host.total - host.available)
  yield from group_limits(root)
  mine = psutil.Process().memory_info()
  for kind, used in ((resource.RLIMIT_AS, mine.vms),
                     (resource.RLIMIT_DATA, getattr(mine, 'data', 0))):
    soft, _ = resource.getrlimit(kind)
    if soft != resource.RLIM_INFINITY:
      yield Limit(soft, used)


def group_limits(root: pathlib.Path) -> Iterator[Limit]:
  """Yields the limits of this process's control groups and of their parents.

  A container may see its own group as the root, so paths that do not exist are
  skipped. `memory.high` counts as a limit, because the system slows a process
  above it down until it hardly runs.

  Args:
    root: the folder with proc/self/cgroup and sys/fs/cgroup.
  """
  try:
    lines = (root / 'proc/self/cgroup').read_text().splitlines()
  except OSError:
    return  # not Linux
  mounted = root / 'sys/fs/cgroup'
  for line in lines:
    _, controllers, path = (line.split(':', 2) + ['', ''])[:3]
    if not controllers:
      mounts = [mounted, mounted / 'unified']
      names = ['memory.max', 'memory.high']
      current, cached = 'memory.current', 'inactive_file'
    elif 'memory' in controllers.split(','):
      mounts, names = [mounted / 'memory'], ['memory.limit_in_bytes']
      current, cached = 'memory.usage_in_bytes', 'total_inactive_file'
    else:
      continue
    parts = [part for part in path.split('/') if part not in ('', '.', '..')]
    for mount in mounts:
      for depth in range(len(parts), -1, -1):
        group = mount.joinpath(*parts[:depth])
        used = max(0, (_number(group / current) or 0)
                   - (_number(group / 'memory.stat', key=cached) or 0))
        for name in names:
          if (total := _number(group / name)) is not None:
            yield Limit(total, used)


def _number(path: pathlib.Path, *, key: str = '') -> int | None:
  """Reads a number from a file, or the number of a key; None for 'max'."""
  try:
    text = path.read_text()
    if key:
      text = dict(line.split() for line in text.splitlines())[key]
    return int(text)
  except (OSError, ValueError, KeyError):
    return None


def shown(count: float) -> str:
  """Formats a number of bytes in GB: 165 GB, 0.0012 GB."""
  return f'{count / 1e9:.0f} GB' if count >= 1e9 else f'{count / 1e9:.2g} GB'


def refuse(size: int, what: str, change: str = 'choose a smaller one') -> None:
  """Raises an error if memory is too small, before any is taken.

  Args:
    size: the memory that is needed, in bytes.
    what: the thing that needs it; the first words of the message.
    change: what the user can do; the last words of the message.

  Raises:
    BadInput: less than `size` is free.
  """
  total = host_bytes()
  free = min(total, free_bytes())
  if size > free:
    raise BadInput(f'{what} takes {shown(size)}, more than the memory here '
                   f'({shown(free)} free of {shown(total)}): {change}')


def ran_out(error: BaseException | None) -> bool:
  """Whether an error, or one of its causes, says that memory ran out."""
  while error is not None:
    if isinstance(error, MemoryError) or (
        getattr(error, 'errno', None) == errno.ENOMEM) or (
            not isinstance(error, Ending) and re.search(_SAID, str(error))):
      return True
    error = error.__cause__
  return False


@contextlib.contextmanager
def watched(change: str) -> Iterator[None]:
  """Turns errors of a host or device without memory into OutOfMemory.

  A context manager, and a decorator too.

  Args:
    change: what the user can do; the last words of the message.

  Raises:
    OutOfMemory: memory ran out within the context.
  """
  try:
    yield
  except OutOfMemory:
    raise
  except Exception as error:
    # A reader without memory may report damaged data, so causes count too.
    if not ran_out(error):
      raise
    said = ' '.join(str(error).split()) or type(error).__name__
    raise OutOfMemory(f'memory ran out: {_facts(error, said)} ({said[:200]}): '
                      f'{change}') from error


def _facts(error: Exception, said: str) -> str:
  """Says how much memory an error needed, how much there is, and where."""
  needed, free = memory_texts.amounts(said)
  total, where, held = host_bytes(), 'of this process', ''
  if type(error).__name__ == 'JaxRuntimeError':  # so JAX has a device
    import jax  # not above: processes that only read images do without JAX
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
      total, where = stats.get('bytes_limit', 0), f'of a {device.device_kind}'
      free = free or total - stats.get('bytes_in_use', 0)
    if device.platform == 'gpu':
      held = (', of which another process may hold a part (nvidia-smi lists '
              'them)')
  free = min(free or free_bytes(), total)
  wanted = f'{shown(needed)} were needed, and ' if needed else ''
  return f'{wanted}{shown(free)} were free of the {shown(total)} {where}{held}'
