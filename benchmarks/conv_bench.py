"""Times the parts of the convolution, layer by layer: ours and XLA's.

  python -m benchmarks.conv_bench --width=64

Numbers are milliseconds for one batch through one layer of each kind of a
ResNet of this width: forward, gradient to the input, gradient to the kernel.
XLA's is timed twice: as a call from Python, and inside a `lax.scan`, where
training needs it. With --convolution=exact, `model.convolution=exact` is timed
in the same run.
"""

from collections.abc import Callable
import functools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lib import timing
from fedu_jax.core.state import Array
from fedu_jax.models import convolution
from fedu_jax.models.cpu_conv import by_shape

PARTS = ('forward', 'to the input', 'to the kernel')
WAYS = ('ours', 'XLA', 'XLA in a scan')
EXACT = 'ours exact'  # no comma, which ends a case's name


def parts(fn: Callable[[Array, Array], Array], part: str
          ) -> Callable[[Array, Array, Array], Array]:
  """Returns (x, kernel, d_y) -> one part of a convolution."""
  return {
      'forward': lambda x, kernel, d_y: fn(x, kernel),
      'to the input': lambda x, kernel, d_y: jax.vjp(
          lambda x: fn(x, kernel), x)[1](d_y)[0],
      'to the kernel': lambda x, kernel, d_y: jax.vjp(
          lambda kernel: fn(x, kernel), kernel)[1](d_y)[0]}[part]


def looped(fn: Callable[..., Array], steps: int) -> Callable[..., Array]:
  """Runs a function `steps` times in a scan, each call after the one before."""
  def body(one, _, args):
    out = fn(*(one * a for a in args))
    return 1 + 1e-20 * out.sum(), None  # XLA would drop outputs that are unused

  def run(*args):
    return jax.lax.scan(functools.partial(body, args=args), jnp.float32(1),
                        length=steps)[0]
  return jax.jit(run)


def main(argv: list[str] | None = None) -> None:
  """Checks each part against XLA's, then times all ways in turn."""
  flags = timing.parser((__doc__ or '').splitlines()[0])
  flags.add_argument('--unlooped', action='store_true',
                     help="leave out XLA's in a scan: at width 64 it takes "
                     'seconds a layer')
  timing.add_convolution(flags)
  args = timing.parse(flags, argv)
  ways = [*WAYS[:2]] if args.unlooped else [*WAYS]
  if args.convolution == 'exact':
    ways.append(EXACT)
  runs: dict[str, Callable[[], Any]] = {}
  compile_seconds = 0.0
  for stage in range(4 if args.size >= 16 else 2):
    side, width = args.size >> stage, args.width << stage
    layers = [(side, width, width, 3, 1)]
    if not stage:
      layers.append((side, 3, width, 3, 1))
    else:
      layers += [(2 * side, width // 2, width, k, 2) for k in (3, 1)]
    for size, channels, features, k, stride in layers:
      arrays = _arrays(args, size, channels, features, k, stride)
      ours = functools.partial(convolution.conv, stride=stride, padding=k // 2)
      xla = functools.partial(by_shape.xla, stride=stride,
                              pads=((k // 2, k // 2),) * 2)
      for part in PARTS:
        name = f'{k}x{k}/{stride} {channels:>3} to {features:>3} at {size:>2}'
        mine, theirs = parts(ours, part), jax.jit(parts(xla, part))
        expected = theirs(*arrays)
        timing.check(f'{name} {part}', float(
            jnp.abs(jax.jit(mine)(*arrays) - expected).max()
            / jnp.abs(expected).max()), 1e-3)
        began = time.time()
        fns: Any = dict(zip(
            (*WAYS, EXACT), (
                looped(mine, args.steps), theirs,
                looped(parts(xla, part), args.steps),
                looped(parts(functools.partial(ours, exact=True), part),
                       args.steps)), strict=True))
        for way in ways:
          program = fns[way].lower(*arrays).compile()
          runs[f'{name} {part}, {way}'] = functools.partial(program, *arrays)
        compile_seconds += time.time() - began
  seconds = timing.interleave(runs, args.repetitions)
  milliseconds = {}
  for name, values in seconds.items():
    count = 1 if name.endswith('XLA') else args.steps
    milliseconds[name] = 1e3 * statistics.median(values) / count
  if not args.json:
    print(f'{"":<44}' + ''.join(f'{way:>15}' for way in ways))
    for case in dict.fromkeys(name.rsplit(', ', 1)[0] for name in runs):
      print(f'{case:<44}' + ''.join(
          f'{milliseconds[f"{case}, {way}"]:15.1f}' for way in ways))
  timing.report(args, compile_seconds=compile_seconds, seconds=seconds,
                layers=milliseconds)


def _arrays(args, size, channels, features, k, stride):
  """Draws x, kernel and d_y of a layer."""
  rngs = jax.random.split(jax.random.key(size + k), 3)
  out = -(-size // stride)
  return (jax.random.normal(rngs[0], (args.batch, size, size, channels)),
          jax.random.normal(rngs[1], (k, k, channels, features)),
          jax.random.normal(rngs[2], (args.batch, out, out, features)))


if __name__ == '__main__':
  main()
