"""The device, its memory, and the versions of what drives it."""

from importlib import metadata
import platform
import subprocess

import jax

from benchmarks.gpu_day.worker import Work
from benchmarks.lib import timing

_PACKAGES = ('jax', 'jaxlib', 'jax-cuda13-plugin', 'jax-cuda12-plugin',
             'nvidia-cudnn-cu13', 'nvidia-cudnn-cu12', 'nvidia-cublas',
             'torch', 'triton', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_QUERY = ('name,driver_version,memory.total,clocks.max.sm,clocks.sm,'
          'temperature.gpu,power.limit')


def run(work: Work) -> None:
  """Writes one row."""
  first = jax.devices()[0]
  work.records.add(
      'row', name='device', backend=jax.default_backend(),
      device=timing.device(), kind_of_device=first.device_kind,
      count=jax.device_count(), memory=(first.memory_stats() or {}).get(
          'bytes_limit'), driver=_driver(), python=platform.python_version(),
      versions={name: version for name in _PACKAGES
                if (version := _version(name))})


def _version(name: str) -> str:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return ''


def _driver() -> str:
  """What the driver's tool says of the card; '' without it."""
  try:
    return subprocess.run(
        ['nvidia-smi', f'--query-gpu={_QUERY}', '--format=csv,noheader'],
        check=True, capture_output=True, text=True, timeout=20).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return ''
