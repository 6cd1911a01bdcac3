"""One of several processes over loopback, as multihost_test starts them.

  python -m tests.helpers.loopback <read|gpus|-> <die in round, 0 = never> \\
      <flags of main>

Runs `fedu_jax.main`. Killed, it is so by itself, when the round is under way.
`read` prints which rows of `Lazy` images were read, and which clients' images
and state lie on this process's devices, as a last line of JSON. `gpus` prints
the GPUs that JAX would use, of those that this process sees.
"""

import json
import os
import signal
import sys

from absl import app
import jax
import numpy as np

from fedu_jax import main
from fedu_jax.data import lazy_arrays
from fedu_jax.runtime import multihost
from fedu_jax.training.engine import round_program


def die_in(number):
  """Kills this process in a round, while the other processes are in it too."""
  gather, rounds = multihost.gather, []

  def gather_or_die(tree):
    rounds.append(tree)
    if len(rounds) == number:
      os.kill(os.getpid(), signal.SIGKILL)
    return gather(tree)
  multihost.gather = gather_or_die


def note_reads():
  """Records the rows that are read, and the arguments of a compiled round."""
  found = {'rows': set(), 'clients': set()}
  read = lazy_arrays.Lazy.__getitem__
  compile_round = round_program.compile_round

  def noting(self, rows):
    found['rows'] |= set(np.arange(len(self))[rows].reshape(-1).tolist())
    return read(self, rows)

  def compiling(recipe, server, clients, arrays, rng, **more):
    for x in jax.tree.leaves((clients, arrays)):
      for shard in x.addressable_shards:
        at = shard.index[0]
        found['clients'] |= set(range(*at.indices(len(x))))
    return compile_round(recipe, server, clients, arrays, rng, **more)
  lazy_arrays.Lazy.__getitem__, round_program.compile_round = noting, compiling
  return found


def run(argv):
  """Runs `fedu_jax.main`; returns the records."""
  noted = note_reads() if what == 'read' else {}
  if int(number):
    die_in(int(number))
  main.main(argv)
  if what == 'gpus':
    noted = {'gpus': [jax.config.values['jax_cuda_visible_devices']]}
  print(json.dumps({name: sorted(x) for name, x in noted.items()}))


if __name__ == '__main__':
  what, number = sys.argv[1:3]
  app.run(run, argv=sys.argv[:1] + sys.argv[3:], flags_parser=main._parse)
