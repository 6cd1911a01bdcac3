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
    # What is ready is timed, before a wait that could be cut. The rows of a
    # later turn replace those of an earlier one.
    variants = {OURS: ours}
    steps.time_in_turns(work, variants)
    for name, peer in peers.items():
      if found := steps.ready(work, {name: peer}, ours, loss):
        variants |= found
        steps.time_in_turns(work, variants)
    steps.all_ready(work)
  finally:
    for peer in peers.values():
      peer.close()
