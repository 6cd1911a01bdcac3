"""The parts that benchmarks share: flags, timing, and printing of figures."""

import argparse
from collections.abc import Callable
import json
import os
import platform
import resource
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.models.convolution import CONVOLUTIONS

# The fields of every benchmark's JSON object; null if it is not measured.
FIELDS = (
    'device', 'jax', 'dtype', 'model', 'width', 'batch', 'size',
    'scan_over_unlooped', 'clients5_over_single', 'torch_over_jax',
    'augment_fraction', 'fraction_of_matmul_peak', 'compile_seconds')

Seconds = dict[str, list[float]]  # name of a run -> seconds by repetition

_QUICK = dict(model='resnet6', width=4, hidden=32, features=16,
              batch=8, size=8)


def parser(description: str) -> argparse.ArgumentParser:
  """Returns the flags of all benchmarks; --quick sets a tiny network."""
  flags = argparse.ArgumentParser(
      description=description,
      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
  flags.add_argument('--model', default='resnet18')
  flags.add_argument('--width', type=int, default=64)
  flags.add_argument('--hidden', type=int, default=4096)
  flags.add_argument('--features', type=int, default=2048)
  flags.add_argument('--dtype', default='float32',
                     choices=['float32', 'bfloat16'])
  flags.add_argument('--batch', type=int, default=128)
  flags.add_argument('--size', type=int, default=32, help='pixels of a side')
  flags.add_argument('--steps', type=int, default=2, help='steps of one run')
  flags.add_argument('--repetitions', type=int, default=5)
  flags.add_argument('--quick', action='store_true',
                     help='a tiny network, to see that everything runs')
  flags.add_argument('--json', action='store_true',
                     help='print one JSON object and nothing else')
  return flags


def add_convolution(flags: argparse.ArgumentParser) -> None:
  """Adds the flag of benchmarks that also time exact convolutions."""
  flags.add_argument('--convolution', default='fast', choices=CONVOLUTIONS,
                     help='exact: time model.convolution=exact as well')


def parse(flags: argparse.ArgumentParser, argv: list[str] | None = None,
          **quick: Any) -> argparse.Namespace:
  """Parses the flags; flags that are given override those of --quick."""
  if flags.parse_args(argv).quick:
    flags.set_defaults(**_QUICK | quick)
  args = flags.parse_args(argv)
  if args.repetitions < 1:
    flags.error('--repetitions must be at least 1')
  if args.steps < 2:
    flags.error('--steps must be at least 2: of one step XLA makes no loop')
  if args.repetitions < 5:
    print('note: medians of fewer than five repetitions say little',
          file=sys.stderr)
  return args


def device() -> str:
  """Names the device; for a CPU, the model and the number of usable cores."""
  if jax.default_backend() != 'cpu':
    return jax.devices()[0].device_kind
  name = platform.processor() or platform.machine()
  try:
    with open('/proc/cpuinfo') as file:
      name = next(line.split(':')[1].strip() for line in file
                  if line.startswith('model name'))
  except (OSError, StopIteration):
    pass
  return f'{name}, {len(os.sched_getaffinity(0))} cores'


def interleave(runs: dict[str, Callable[[], Any]],
               repetitions: int) -> Seconds:
  """Times all runs in turn, repetition by repetition.

  If the machine is slow for a while, it is slow for all runs. Each run is
  called once before, to warm up. A run that returns a float has timed itself.
  """
  seconds: Seconds = {name: [] for name in runs}
  for repetition in range(-1, repetitions):
    for name, run in runs.items():
      began = time.perf_counter()
      result = jax.block_until_ready(run())
      took = time.perf_counter() - began
      if repetition >= 0:
        seconds[name].append(result if isinstance(result, float) else took)
  return seconds


def ratio(over: list[float], under: list[float], factor: float = 1.0) -> float:
  """Returns the median over repetitions of factor * over / under."""
  return statistics.median(
      factor * a / b for a, b in zip(over, under, strict=True))


def show(label: str, values: list[float], unit: str, factor: float = 1.0
         ) -> None:
  """Prints the median of the values, and their range if there are several."""
  scaled = sorted(factor * x for x in values)
  spread = f' ({scaled[0]:.2f} to {scaled[-1]:.2f})' if scaled[1:] else ''
  print(f'{label:<34}{statistics.median(scaled):9.2f}{spread} {unit}',
        flush=True)


def matmul(dtype: str) -> tuple[Callable[[], Any], float]:
  """Returns a run of matrix products, and its number of operations."""
  # More work on an accelerator, which would else end before the call returns.
  side, times = (2048, 4) if jax.default_backend() == 'cpu' else (8192, 32)
  rng1, rng2 = jax.random.split(jax.random.key(0))
  a = jax.random.normal(rng1, (side, side), dtype)
  b = jax.random.normal(rng2, (side, side), dtype) / side**0.5

  @jax.jit
  def run(a, b):
    return jax.lax.fori_loop(0, times, lambda _, x: x @ b, a)
  return lambda: run(a, b), 2.0 * side**3 * times


def movement_error(start: Any, ours: Any, theirs: Any) -> float:
  """Compares two trainings: |ours - theirs| / |theirs - start|."""
  def norm(a, b):
    return sum(float(np.sum(np.square(np.asarray(x, np.float64)
                                      - np.asarray(y, np.float64))))
               for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b),
                               strict=True)) ** 0.5
  return norm(ours, theirs) / norm(theirs, start)


def report(args: argparse.Namespace, **found: Any) -> None:
  """Prints the JSON object, or a last line with the ratios."""
  result = dict.fromkeys(x for x in FIELDS if x not in found) | dict(
      device=device(), jax=jax.__version__, dtype=args.dtype, model=args.model,
      width=args.width, batch=args.batch, size=args.size,
      # Host memory, over the whole life of this process.
      peak_resident_bytes=1024 * resource.getrusage(
          resource.RUSAGE_SELF).ru_maxrss) | found
  if args.json:
    print(json.dumps(result))
  else:
    print(', '.join(
        f'{name} {value:.3g}' if isinstance(value, float) else f'{name} {value}'
        for name, value in result.items()
        if isinstance(value, (float, int, str))))


def check(what: str, error: float, bound: float) -> None:
  """Stops the benchmark if two results of the same work differ.

  Raises:
    SystemExit: the error is above the bound, or NaN.
  """
  if not error <= bound:
    raise SystemExit(f'{what} differ: relative error {error:.2g}, at most '
                     f'{bound:g}; nothing was timed')


def quiet(args: argparse.Namespace) -> Callable[..., None]:
  """Returns `show`; with --json, a function that prints nothing."""
  return (lambda *_: None) if args.json else show


def random_images(count: int, size: int, seed: int = 0) -> jax.Array:
  """Draws images [count, size, size, 3] u8 with a colour, pattern and noise.

  Images of noise alone have nearly equal pooled features. BatchNorm would then
  magnify rounding errors, and two ways of doing the same work would differ.
  """
  rngs = jax.random.split(jax.random.key(seed), 3)
  blocks = -(-size // 4)
  colour = jax.random.uniform(rngs[0], (count, 1, 1, 3))
  pattern = jax.random.uniform(rngs[1], (count, blocks, blocks, 3))
  pattern = pattern.repeat(4, 1).repeat(4, 2)[:, :size, :size]
  noise = jax.random.uniform(rngs[2], (count, size, size, 3))
  return (255 * (colour + pattern + noise) / 3).astype(jnp.uint8)
