"""Times whole rounds, by clients, execution and batch, with their memory.

  python -m benchmarks.round_bench --clients=1,5 --batches=32,128

It times the program of `fedu_jax.main`: shuffling, augmentation, training,
divergence, aggregation and DAPU. Each client trains one epoch of --steps
batches. Memory is the compiler's figure: temporaries, and arguments and results
counted once, because the state is replaced in place.
"""

import argparse
import itertools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lib import timing
from benchmarks.lib import workload
from fedu_jax.core import local_training
from fedu_jax.core.state import ServerState
from fedu_jax.training.config import build
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import round_program


def main(argv: list[str] | None = None) -> None:
  """Checks that the executions agree, then times all in turn."""
  flags = timing.parser((__doc__ or '').splitlines()[0])
  flags.add_argument('--clients', default='1,5')
  flags.add_argument('--executions', default='map,vmap')
  flags.add_argument('--batches', default='',
                     help='several batch sizes instead of --batch')
  args = timing.parse(flags, argv, executions='map')
  clients = [int(x) for x in args.clients.split(',')]
  executions = args.executions.split(',')
  batches = [int(x) for x in (args.batches or str(args.batch)).split(',')]

  runs, rows = {}, {}
  for k, batch in itertools.product(clients, batches):
    ends = {}
    for execution in executions:
      name = f'{k} clients, {execution}, batch {batch}'
      runs[name], ends[execution], rows[name] = _case(args, k, batch, execution)
    start, reference = ends[executions[0]]
    for execution in executions[1:]:
      timing.check(
          f'{execution} and {executions[0]}',
          timing.movement_error(start, ends[execution][1], reference),
          workload.BOUND[args.dtype])
  seconds = timing.interleave(runs, args.repetitions)

  show = timing.quiet(args)
  for name, row in rows.items():
    row['milliseconds_per_image'] = (
        1e3 * statistics.median(seconds[name]) / row['images'])
    show(name, seconds[name], 'ms/image', 1e3 / row['images'])
    for what in ('peak_memory', 'state_per_client'):
      show(f'  {what.replace("_", " ")}', [row[what]], 'MB', 1e-6)
    show('  compilation', [row['compile_seconds']], 's')
  found: dict[str, Any] = {}
  if {1, 5} <= set(clients):
    one, five = (f'{k} clients, {executions[0]}, batch {batches[-1]}'
                 for k in (1, 5))
    found['clients5_over_single'] = timing.ratio(
        seconds[five], seconds[one], rows[one]['images'] / rows[five]['images'])
    found['memory_per_client'] = (
        rows[five]['peak_memory'] - rows[one]['peak_memory']) / 4
  timing.report(
      args, compile_seconds=max(x['compile_seconds'] for x in rows.values()),
      seconds=seconds,
      rounds=list(rows.values()), **found)


def _case(args: argparse.Namespace, k: int, batch: int, execution: str):
  """Makes a case: its run, its first and last parameters, and its figures."""
  case = argparse.Namespace(**{**vars(args), 'batch': batch})
  work = workload.make(case, first_target='alias')  # as in cifar10.py
  work.config.clients, work.config.execution = k, execution
  work.config.local_epochs = 1
  count = args.steps * batch
  images = np.asarray(timing.random_images(k * count, args.size))
  arrays = local_training.client_arrays(
      images, np.split(np.arange(k * count), k))
  server = ServerState(jax.tree.map(jnp.array, work.online), jnp.int32(0))
  states = local_training.init_clients(work.online, arrays.num_examples)
  rng = jax.random.key(0)
  began = time.time()
  compiled = round_program.compile_round(
      build.recipe(work.config).with_full_steps([[count] * k]), server, states,
      arrays, rng)
  compile_seconds = time.time() - began
  peak = cost_model.peak_memory(compiled)
  size = sum(x.nbytes for x in jax.tree.leaves(states))
  box = [compiled(server, states, arrays, rng)[:2]]
  end = jax.tree.map(np.asarray, _params(box[0][0].online))

  def run():
    server, states, metrics = compiled(*box[0], arrays, rng)
    box[0] = server, states
    return metrics
  return run, (_params(work.online), end), dict(
      clients=k, execution=execution, batch=batch, images=k * count,
      compile_seconds=compile_seconds, peak_memory=peak,
      state_per_client=size / k)


def _params(online):
  return online.encoder.params, online.predictor.params


if __name__ == '__main__':
  main()
