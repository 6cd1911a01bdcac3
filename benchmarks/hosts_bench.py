"""Times a round on several processes, and on one with as many devices.

  python -m benchmarks.hosts_bench --processes=2

It starts all processes itself. They share this machine's CPU, have one device
each, and communicate over loopback. So it measures the cost of several
processes, and not that of a network. Each client has --steps batches.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lib import timing
from benchmarks.lib import workload
from fedu_jax.core import local_training
from fedu_jax.runtime import multihost
from fedu_jax.training.config import build
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import round_program

_TIMEOUT = 300  # seconds that processes on a busy machine wait for each other


def main(argv: list[str] | None = None) -> None:
  """Starts both groups, checks that they agree, and times them in turn."""
  flags = timing.parser((__doc__ or '').splitlines()[0])
  flags.add_argument('--processes', type=int, default=2)
  flags.add_argument('--clients', type=int, default=1, help='of each process')
  # For the processes that this one starts.
  for name in ('--process', '--coordinator', '--ends'):
    flags.add_argument(name, default='', help=argparse.SUPPRESS)
  argv = sys.argv[1:] if argv is None else argv
  args = timing.parse(flags, argv)
  if args.ends:
    _serve(args)
    return
  if args.processes < 2:
    flags.error('--processes must be at least 2')
  name = f'{args.processes} processes'
  with contextlib.ExitStack() as stack:
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    groups = {}
    for group, count in (('1 process', 1), (name, args.processes)):
      groups[group] = _start(argv, count, args.processes // count,
                             folder / group.replace(' ', '_'))
      for process in groups[group]:
        stack.callback(process.kill)
    compiled = {group: _answer(own) for group, own in groups.items()}
    start, one = (np.load(folder / '1_process' / f'{x}.npy') for x in (0, 1))
    several = np.load(folder / name.replace(' ', '_') / '1.npy')
    timing.check(f'{name} and one', timing.movement_error(
        start, several, one), workload.BOUND[args.dtype])
    seconds = timing.interleave(
        {group: functools.partial(_round, own)
         for group, own in groups.items()},
        args.repetitions)
  show = timing.quiet(args)
  for group, own in seconds.items():
    show(f'{group}, {args.processes} devices', own, 's/round')
  timing.report(args, seconds=seconds, processes=args.processes,
                clients=args.clients * args.processes,
                compile_seconds=compiled[name],
                hosts_over_one=timing.ratio(seconds[name],
                                            seconds['1 process']))


def _start(argv, count, num_devices, ends):
  """Starts `count` processes with `num_devices` devices each."""
  ends.mkdir()
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{found.getsockname()[1]}'
  env = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS':
      f'--xla_force_host_platform_device_count={num_devices}'}
  return [subprocess.Popen(
      [sys.executable, '-m', 'benchmarks.hosts_bench', *argv, f'--process={i}',
       f'--coordinator={address if count > 1 else ""}', f'--ends={ends}'],
      env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
          for i in range(count)]


def _answer(processes: list[subprocess.Popen]) -> float:
  """Waits until the first process prints its seconds; skips gloo's lines.

  Raises:
    SystemExit: the process ended.
  """
  for line in processes[0].stdout or ():
    if line.startswith('seconds '):
      return float(line.split()[1])
  raise SystemExit('a process of the benchmark ended early: see above')


def _round(processes: list[subprocess.Popen]) -> float:
  for process in processes:
    assert process.stdin
    process.stdin.write('go\n')
    process.stdin.flush()
  return _answer(processes)


def _serve(args: argparse.Namespace) -> None:
  """Runs one process: two rounds, then one for each line of stdin."""
  several = bool(args.coordinator)
  with multihost.joined(coordinator=args.coordinator,
                        processes=args.processes if several else 0,
                        process=int(args.process) if several else -1,
                        timeout=_TIMEOUT):
    took, one_round = _compiled(args)
    ends = [one_round() for _ in range(2)]
    if multihost.first():
      for i, end in enumerate(ends):
        np.save(pathlib.Path(args.ends) / f'{i}.npy', end)
    print('seconds', took, flush=True)
    for _ in sys.stdin:
      began = time.perf_counter()
      one_round()
      print('seconds', time.perf_counter() - began, flush=True)


def _compiled(args):
  """Returns the seconds to compile, and a function that runs a round."""
  work = workload.make(args, first_target='alias')
  config, count = work.config, args.steps * args.batch
  config.clients, config.local_epochs = args.clients * args.processes, 1
  layout = device_mesh.layout('auto', config.clients)
  recipe = build.recipe(config).with_full_steps([[count] * config.clients])
  by_client, everywhere = map(layout.sharding, (
      device_mesh.BY_CLIENT, device_mesh.EVERYWHERE))
  images = np.asarray(timing.random_images(config.clients * count, args.size))
  parts = np.split(np.arange(len(images)), config.clients)
  arrays = local_training.client_arrays(images, parts, by_client)

  def init():
    rng = jax.random.key(0)
    return (*round_program.init_state(
        recipe, work.online, np.full(len(parts), count), rng,
        jnp.zeros((1, args.size, args.size, 3))), rng)
  server, clients, rng = jax.jit(init, out_shardings=(
      everywhere, by_client, everywhere))()
  began = time.time()
  compiled = round_program.compile_round(
      recipe, server, clients, arrays, rng, layout=layout)
  took = time.time() - began

  box = [(server, clients)]

  def one_round():
    server, clients, metrics = compiled(*box[0], arrays, rng)
    box[0] = server, clients
    jax.block_until_ready(metrics)
    online = multihost.own_copy(server.online)
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(
        (online.encoder.params, online.predictor.params))])
  return took, one_round


if __name__ == '__main__':
  main()
