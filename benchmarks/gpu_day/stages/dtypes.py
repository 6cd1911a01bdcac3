"""The step with random views, and with products of float32, in turns."""

import functools

from benchmarks.gpu_day import steps
from benchmarks.gpu_day.worker import Work

VIEWS = 'bfloat16, random views'


def run(work: Work) -> None:
  """Writes a row for each variant, and for eager PyTorch in TF32."""
  peers, _ = steps.peers(work, 'float32', ['eager'])
  try:
    made = steps.compile_in_time(work, {
        'bfloat16': functools.partial(steps.ours, work),
        VIEWS: functools.partial(steps.ours, work, random_views=True),
        'float32, default': functools.partial(steps.ours, work, 'float32'),
        'float32, in full': functools.partial(
            steps.ours, work, 'float32', precision='float32')})
    if ours := made.get('float32, default'):
      made |= steps.ready(work, peers, ours, None)
    steps.time_in_turns(work, made)
    steps.all_ready(work)
  finally:
    for peer in peers.values():
      peer.close()
