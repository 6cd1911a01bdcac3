"""Times a BYOL step, in a scan and from Python, for one client and for five.

  python -m benchmarks.step_bench --width=64

Numbers are milliseconds for one image of one client, with augmentation: median
(lowest to highest) of the repetitions. The last line has the ratios.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.lib import timing
from benchmarks.lib import workload
from fedu_jax.training.config import binding
from fedu_jax.training.engine import cost_model

_CLIENTS = 5


def main(argv: list[str] | None = None) -> None:
  """Checks that all ways agree, then times them in turn."""
  flags = timing.parser((__doc__ or '').splitlines()[0])
  flags.add_argument(
      '--executions', default='map,vmap',
      help='how five clients run; vmap takes 2.7 times as long on CPU')
  timing.add_convolution(flags)
  args = timing.parse(flags, argv, executions='map')
  executions = args.executions.split(',')
  work = workload.make(args)
  first = workload.start(work)
  images, rngs = workload.batches(args)
  copy = lambda tree: jax.tree.map(jnp.array, tree)

  began = time.time()
  scan = workload.compiled(
      lambda *x: workload.steps(work, *x), copy(first), images, rngs)
  compile_seconds = time.time() - began
  unlooped = workload.unlooped(work)
  many = [workload.batches(args, seed) for seed in range(_CLIENTS)]
  stacked = (jax.tree.map(lambda *x: jnp.stack(x), *[first] * _CLIENTS),
             *(jnp.stack(x) for x in zip(*many)))
  programs = {name: workload.compiled(workload.clients(work, name), *stacked)
              for name in executions}
  _check(args, first, scan(copy(first), images, rngs),
         unlooped(copy(first), images, rngs),
         {name: fn(copy(stacked[0]), *stacked[1:])
          for name, fn in programs.items()})

  product, product_operations = timing.matmul(args.dtype)
  draw = binding.view(work.config)
  view = jax.jit(lambda x, rng: [draw(x, key) for key in jax.random.split(rng)])
  runs = {'matmul': product, 'augment': lambda: view(images[0], rngs[0]),
          'unlooped': workload.repeated(unlooped, first, images, rngs),
          'scan': workload.repeated(scan, first, images, rngs)}
  if args.convolution == 'exact':
    slow = workload.make(args, convolution='exact')
    exact = workload.compiled(
        lambda *x: workload.steps(slow, *x), copy(first), images, rngs)
    runs['scan, exact'] = workload.repeated(exact, first, images, rngs)
  runs |= {name: workload.repeated(fn, *stacked)
           for name, fn in programs.items()}
  seconds = timing.interleave(runs, args.repetitions)

  count = args.steps * args.batch
  show = timing.quiet(args)
  for name in ('unlooped', 'scan', 'scan, exact'):
    if name in seconds:
      show(name, seconds[name], 'ms/image', 1e3 / count)
  for name in executions:
    show(f'{_CLIENTS} clients, {name}', seconds[name], 'ms/image',
         1e3 / count / _CLIENTS)
    show('  over one client', [
        a / b / _CLIENTS
        for a, b in zip(seconds[name], seconds['scan'])], '')
  show('both augmentations', seconds['augment'], 'ms/image', 1e3 / args.batch)
  show('matrix products', [product_operations / x for x in seconds['matmul']],
       'GFLOP/s', 1e-9)
  show('peak memory, one client', [cost_model.peak_memory(scan)], 'MB', 1e-6)
  for name, fn in programs.items():
    show(f'peak memory, {_CLIENTS} clients, {name}',
         [cost_model.peak_memory(fn)], 'MB', 1e-6)
  peak = product_operations / min(seconds['matmul'])
  needed = workload.operations(work, args) * count / peak
  timing.report(
      args, compile_seconds=compile_seconds, seconds=seconds,
      scan_over_unlooped=timing.ratio(seconds['scan'], seconds['unlooped']),
      clients5_over_single=timing.ratio(
          seconds[executions[0]], seconds['scan'], 1 / _CLIENTS),
      exact_over_fast=timing.ratio(seconds['scan, exact'], seconds['scan'])
      if 'scan, exact' in seconds else None,
      augment_fraction=timing.ratio(
          seconds['augment'], seconds['scan'], args.steps),
      fraction_of_matmul_peak=needed / statistics.median(seconds['scan']),
      execution=executions[0],
      milliseconds_per_image=1e3 * statistics.median(seconds['scan']) / count)


def _check(args: argparse.Namespace, first, scanned, one_by_one, many) -> None:
  """Checks that all ways trained the same network from the same start."""
  params = lambda state: (state.online.encoder.params,
                          state.online.predictor.params)
  bound = workload.BOUND[args.dtype]
  timing.check('scan and unlooped steps', timing.movement_error(
      params(first), params(scanned[0]), params(one_by_one[0])), bound)
  for name, (state, _) in many.items():
    client0 = jax.tree.map(lambda x: x[0], state)
    timing.check(f'{name} and one client', timing.movement_error(
        params(first), params(client0), params(scanned[0])), bound)


if __name__ == '__main__':
  main()
