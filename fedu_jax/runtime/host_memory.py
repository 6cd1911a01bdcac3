"""How much memory this process may take, and what if it is too little.

Limits are those of the host, of the control groups that containers and SLURM
set (versions 1 and 2), and of `ulimit`.
"""

from collections.abc import Iterator
import contextlib
import errno
import pathlib
import re
import resource
from typing import NamedTuple

import psutil

from fedu_jax.runtime.errors import BadInput, Ending, OutOfMemory

_ROOT = pathlib.Path('/')
# What libraries say when memory runs out; their classes of errors differ.
_SAID = ('(?i)RESOURCE_EXHAUSTED|out of memory|bad_alloc|unable to alloc|'
         'cannot allocate memory|_ALLOC_FAILED')


class Limit(NamedTuple):
  """A limit on memory, and how much of it is used, in bytes."""
  total: int
  used: int


def host_bytes(root: pathlib.Path = _ROOT) -> int:
  """The most memory that this process can ever have, in bytes.

  Args:
    root: of the file system in which control groups are looked up.
  """
  return min(limit.total for limit in _limits(root))


def free_bytes(root: pathlib.Path = _ROOT) -> int:
  """The memory that this process can still take, in bytes.

  What the system holds as a cache of files counts as free. Swap does not count.

  Args:
    root: as for `host_bytes`.
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
  """The limits of this process's control groups and of all groups above them.

  A container may see its own group as the root: groups that are not there are
  passed over. `memory.high` counts as a limit, since a process above it is
  slowed down until it hardly runs.

  Args:
    root: holds proc/self/cgroup and sys/fs/cgroup.
  """
  try:
    lines = (root / 'proc/self/cgroup').read_text().splitlines()
  except OSError:
    return  # no Linux
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
  """Reads a number from a file, or the one behind a key; 'max' is none."""
  try:
    text = path.read_text()
    if key:
      text = dict(line.split() for line in text.splitlines())[key]
    return int(text)
  except (OSError, ValueError, KeyError):
    return None


def shown(count: float) -> str:
  """Formats bytes in GB: 165 GB, 0.0012 GB."""
  return f'{count / 1e9:.0f} GB' if count >= 1e9 else f'{count / 1e9:.2g} GB'


def refuse(size: int, what: str, change: str = 'choose a smaller one') -> None:
  """Refuses what takes more bytes than are free, before any is taken.

  Args:
    size: in bytes.
    what: takes them; the message begins with it.
    change: what a person can do; the message ends with it.

  Raises:
    BadInput: memory is smaller.
  """
  total = host_bytes()
  free = min(total, free_bytes())
  if size > free:
    raise BadInput(f'{what} takes {shown(size)}, more than the memory here '
                   f'({shown(free)} free of {shown(total)}): {change}')


def ran_out(error: BaseException | None) -> bool:
  """Whether an error, or what it was raised from, is a lack of memory."""
  while error is not None:
    if isinstance(error, MemoryError) or (
        getattr(error, 'errno', None) == errno.ENOMEM) or (
            not isinstance(error, Ending) and re.search(_SAID, str(error))):
      return True
    error = error.__cause__
  return False


@contextlib.contextmanager
def watched(change: str) -> Iterator[None]:
  """Turns a lack of memory, of the host or of a device, into one line.

  Also a decorator.

  Args:
    change: what a person can do; the message ends with it.

  Raises:
    OutOfMemory: memory ran out within.
  """
  try:
    yield
  except OutOfMemory:
    raise
  except Exception as error:
    # A reader calls damaged what it has no memory for: its cause counts.
    if not ran_out(error):
      raise
    said = ' '.join(str(error).split())[:200] or type(error).__name__
    raise OutOfMemory(f'memory ran out ({said}): {change}') from error
