"""A client's step in bfloat16, and PyTorch's under autocast, in turns."""

from benchmarks.gpu_day import steps
from benchmarks.gpu_day.worker import Work

OURS = 'ours, one client, bfloat16'


def run(work: Work) -> None:
  """Writes a row for ours, and for eager and compiled PyTorch."""
  peers, online = steps.peers(work, 'bfloat16', ['eager', 'compile'])
  try:
    ours = steps.ours(work, online=online)
    loss = steps.first_loss(ours.run)
    # What is ready now is timed, before anything that could be cut.
    steps.time_in_turns(work, {OURS: ours})
    found = steps.ready(work, peers, ours, loss)
    if found:
      steps.time_in_turns(work, {OURS: ours, **found})
  finally:
    for peer in peers.values():
      peer.close()
