"""The kernels of a step, by the time that they take."""

import collections
from collections.abc import Iterator
import pathlib
import re
import tempfile
from typing import Any

import jax

from benchmarks.gpu_day import steps
from benchmarks.gpu_day.worker import Work

NAME = 'profile.tsv'
_LINES = 150


def run(work: Work) -> None:
  """Writes a table of kernels, and a row with their sums."""
  variant = steps.ours(work, random_views=True)
  jax.block_until_ready(variant.run())
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(variant.run())
    kernels = sums(pathlib.Path(folder))
  total = sum(seconds for _, seconds in kernels.values())
  count = sum(times for times, _ in kernels.values())
  ordered = sorted(kernels.items(), key=lambda x: -x[1][1])
  (work.out / NAME).write_text('microseconds a step\tshare\ttimes a step\t'
                               'kernel\n' + ''.join(
      f'{1e6 * seconds / work.sizes.steps:.2f}\t{seconds / total:.4f}\t'
      f'{times / work.sizes.steps:.2f}\t{name}\n'
      for name, (times, seconds) in ordered[:_LINES]))
  groups = _by_kind(kernels)
  work.records.add(
      'row', name='profile', kernels_a_step=count / work.sizes.steps,
      busy_seconds_a_step=total / work.sizes.steps, kinds=groups,
      top=[[name[:120], times, seconds] for name, (times, seconds)
           in ordered[:15]])


def sums(folder: pathlib.Path) -> dict[str, tuple[int, float]]:
  """Returns how often each kernel of a trace ran, and its seconds in all."""
  found: dict[str, tuple[int, float]] = {}
  for path in folder.rglob('*.xplane.pb'):
    for name, seconds in kernels_of(jax.profiler.ProfileData.from_file(
        str(path))):
      times, before = found.get(name, (0, 0.0))
      found[name] = times + 1, before + seconds
  return found


def kernels_of(data: Any) -> Iterator[tuple[str, float]]:
  """Yields name and seconds of each kernel on a device.

  A GPU has a plane for itself, with a line for each stream. On a CPU, kernels
  are the events that belong to an operation of a program.
  """
  planes = list(data.planes)
  devices = [x for x in planes if x.name.startswith('/device:')]
  for plane in devices or planes:
    for line in plane.lines:
      if devices and not line.name.startswith('Stream'):
        continue
      for event in line.events:
        if devices or any(key == 'hlo_op' for key, _ in event.stats):
          yield event.name, 1e-9 * event.duration_ns


def _by_kind(kernels: dict[str, tuple[int, float]]) -> dict[str, list[float]]:
  """Sums up kernels that differ in their numbers and shapes only."""
  found: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
  for name, (times, seconds) in kernels.items():
    kind = re.sub(r'[\d_.]+$', '', re.split(r'[<(]', name)[0])[:60]
    found[kind][0] += times
    found[kind][1] += seconds
  return dict(sorted(found.items(), key=lambda x: -x[1][1])[:25])
