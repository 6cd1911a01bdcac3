"""Times our step and the same step in PyTorch, with equal weights and views.

  python -m benchmarks.peer_bench --width=64

PyTorch runs channels_last, and under autocast if --dtype=bfloat16. Both sides
get finished views, so the time has no augmentation. They run in turn. The last
line has the ratio; above 1 means that ours is faster.
"""

import copy
import multiprocessing
import os
import statistics
import time
from typing import Any

# PyTorch needs memory on the same GPU.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lib import timing
from benchmarks.lib import workload
from fedu_jax.core.state import Array

# With fewer channels, PyTorch 2.13 computes a wrong gradient of a strided 1x1
# kernel on CPU, in channels_last.
_SOUND = 8


def tinted(images: Array, rng: Array) -> Array:
  """Makes a view that costs next to nothing: another tint for each key.

  With equal views, XLA would compute them once and halve the work.
  """
  tint = jax.random.uniform(rng, (len(images), 1, 1, 3), minval=0.5)
  return images.astype(jnp.float32) / 255 * tint


def main(argv: list[str] | None = None) -> None:
  """Checks that one step of each agrees, then times them in turn."""
  flags = timing.parser((__doc__ or '').splitlines()[0])
  flags.add_argument('--peer', default='eager',
                     choices=['eager', 'fused', 'compile'],
                     help='eager; its optimiser fused; or the loss compiled')
  args = timing.parse(flags, argv)
  try:
    from benchmarks.lib import torch_peer
    from tests.helpers import torch_weights
  except ImportError as error:
    raise SystemExit(f"peer_bench needs PyTorch ({error}): pip install -e "
                     "'.[parity]'") from error
  encoder, predictor = torch_peer.nets(args)
  work = workload.make(args, view=tinted)
  first = workload.start(work, torch_weights.online_from(encoder, predictor))
  images, rngs = workload.batches(args)
  rate = work.config.optimizer.learning_rate

  context = multiprocessing.get_context('spawn')
  pipe, theirs = context.Pipe()
  peer = context.Process(target=torch_peer.serve, daemon=True, args=(
      theirs, args, views(images, rngs), rate, work.config.learner.decay))
  peer.start()

  def ask(what):
    pipe.send(what)
    while not pipe.poll(1):
      if not peer.is_alive():
        raise SystemExit('PyTorch\'s process died')
    return pipe.recv()

  began = time.time()
  scan = workload.compiled(lambda *x: workload.steps(work, *x),
                           jax.tree.map(jnp.array, first), images, rngs)
  compile_seconds = time.time() - began
  unlooped = workload.unlooped(work)

  state, losses = unlooped(jax.tree.map(jnp.array, first), images[:1],
                           rngs[:1])
  bound = workload.BOUND[args.dtype]
  for layout in ('contiguous_format', 'channels_last'):
    if layout == 'channels_last' and args.width < _SOUND:
      continue
    loss, *weights = ask(layout)
    modules: Any = (encoder, predictor, copy.deepcopy(encoder))
    for module, new in zip(modules, weights, strict=True):
      module.load_state_dict({k: _tensor(v) for k, v in new.items()})
    timing.check(f'losses, {layout}', abs(float(losses[0]) - loss) / loss,
                 bound / 10)
    ours = [state.online.encoder, state.online.predictor, state.target]
    start = [first.online.encoder, first.online.predictor, first.target]
    reached = [torch_weights.from_torch(module) for module in modules]
    for name, a, b, c in zip(('encoder', 'predictor', 'target'), start, ours,
                             reached, strict=True):
      for kind in ('params', 'batch_stats'):
        timing.check(f'{name}, {kind}, {layout}', timing.movement_error(
            *(getattr(x, kind) for x in (a, b, c))), bound)

  product, product_operations = timing.matmul(args.dtype)
  name = f'PyTorch, {args.peer}'
  runs = {'matmul': product, name: lambda: ask('time'),
          'unlooped': workload.repeated(unlooped, first, images, rngs),
          'scan': workload.repeated(scan, first, images, rngs)}
  seconds = timing.interleave(runs, args.repetitions)
  pipe.send('stop')
  peer.join()

  count = args.steps * args.batch
  show = timing.quiet(args)
  for run in (name, 'unlooped', 'scan'):
    show(run, seconds[run], 'ms/image', 1e3 / count)
  show('matrix products', [product_operations / x for x in seconds['matmul']],
       'GFLOP/s', 1e-9)
  for run in ('unlooped', 'scan'):
    show(f'PyTorch over ours, {run}',
         [a / b for a, b in zip(seconds[name], seconds[run])], '')
  peak = product_operations / min(seconds['matmul'])
  needed = workload.operations(work, args) * count / peak
  timing.report(
      args, compile_seconds=compile_seconds, seconds=seconds, peer=args.peer,
      fraction_of_matmul_peak=needed / statistics.median(seconds['scan']),
      scan_over_unlooped=timing.ratio(seconds['scan'], seconds['unlooped']),
      milliseconds_per_image=1e3 * statistics.median(seconds['scan']) / count,
      torch_over_unlooped=timing.ratio(seconds[name], seconds['unlooped']),
      torch_over_jax=timing.ratio(seconds[name], seconds['scan']))


def views(images: Array, rngs: Array) -> list[tuple[np.ndarray, ...]]:
  """Draws the views of our step for PyTorch: [B, 3, H, W]."""
  return [tuple(np.asarray(tinted(x, key).transpose(0, 3, 1, 2))
                for key in jax.random.split(rng))
          for x, rng in zip(images, rngs, strict=True)]


def _tensor(x: np.ndarray):
  import torch
  return torch.from_numpy(np.ascontiguousarray(x))


if __name__ == '__main__':
  main()
