"""Five clients one after the other, and at once, beside one client."""

import functools

from benchmarks.gpu_day import steps
from benchmarks.gpu_day.worker import Work


def run(work: Work) -> None:
  """Writes a row for one client, and for five by each execution."""
  steps.time_in_turns(work, steps.compile_in_time(work, {
      'one client': functools.partial(steps.ours, work),
      **{f'five clients, {name}': functools.partial(
          steps.ours, work, execution=name) for name in ('map', 'vmap')}}))
  steps.all_ready(work)
