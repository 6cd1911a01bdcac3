"""Times rounds of one cohort among many clients, by the clients' store.

  python -m benchmarks.clients_bench --clients=10,100,1000,10000 --plot=k.png

The cohort stays the same. So the time and the device memory of a round should
not depend on the number of clients, except with the store `device`, which keeps
all clients there. Device memory is the compiler's figure for the round's
program plus all other arrays on the device. The last part times rounds while
clients are moved behind the training, and while the device waits for them.
"""

import argparse
import functools
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks.lib import timing
from benchmarks.lib import workload
from fedu_jax.runtime import checkpoint
from fedu_jax.training.config import build
from fedu_jax.training.engine import client_store
from fedu_jax.training.engine import clients_on_device
from fedu_jax.training.engine import clients_streamed
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine.federation import Start


def main(argv: list[str] | None = None) -> None:
  """Checks that the stores agree, then times all cases in turn."""
  flags = timing.parser((__doc__ or '').splitlines()[0])
  flags.set_defaults(model='resnet6', width=4, hidden=32, features=16, batch=8,
                     size=8, repetitions=9)
  flags.add_argument('--clients', default='10,100,1000,10000')
  flags.add_argument('--cohort', type=int, default=8)
  flags.add_argument('--stores', default='device,host,disk')
  flags.add_argument('--traffic_width', type=int, default=64, help='of the '
                     'network whose traffic is timed; 0 leaves that out')
  flags.add_argument('--plot', default='', help='a PNG to draw')
  args = timing.parse(flags, argv, clients='10,20', stores='device,host',
                      traffic_width=4)
  counts = [int(x) for x in args.clients.split(',')]
  with tempfile.TemporaryDirectory() as folder:
    rows, seconds = _clients(args, counts, pathlib.Path(folder))
    found: dict[str, Any] = {}
    if args.traffic_width:
      found = _traffic(args, pathlib.Path(folder))
  names = args.stores.split(',')
  for name in names:
    few, many = (f'{name}, {k} clients' for k in (counts[0], counts[-1]))
    found[f'{name}_most_over_fewest'] = timing.ratio(
        seconds[many], seconds[few])
    found[f'{name}_memory_most_over_fewest'] = (
        rows[many]['device_bytes'] / rows[few]['device_bytes'])
  if args.plot:
    _plot(args.plot, names, counts, rows, seconds)
  timing.report(args, cohort=args.cohort, seconds=seconds, rows=rows,
                compile_seconds=max(x['compile_seconds']
                                    for x in rows.values()), **found)


def _clients(args, counts, folder):
  """Times a round for each number of clients and each store."""
  federations, rows, ends = {}, {}, {}
  for k in counts:
    for name in args.stores.split(','):
      case = f'{name}, {k} clients'
      federations[case], rows[case] = _case(args, k, name, folder / case)
      ends[name] = jax.device_get(federations[case].online(0).encoder.params)
      del rows[case]['start']
    reference, *others = ends.values()
    for other in others:
      timing.check(f'stores of {k} clients',
                   timing.movement_error(0 * _flat(reference), _flat(other),
                                         _flat(reference)), 1e-6)
  seconds = timing.interleave(
      {case: federation.advance for case, federation in federations.items()},
      args.repetitions)
  show = timing.quiet(args)
  for case, row in rows.items():
    row['seconds'] = statistics.median(seconds[case])
    show(case, seconds[case], 'ms a round', 1e3)
    show('  device memory', [row['device_bytes']], 'MB', 1e-6)
  return rows, seconds


def _flat(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def _case(args: argparse.Namespace, k: int, name: str, folder: pathlib.Path,
          **choices: Any):
  """Makes a federation, runs its first round, and measures its memory."""
  before = sum(x.nbytes for x in jax.live_arrays())
  work = workload.make(args)
  config = work.config
  config.clients, config.cohort, config.local_epochs = k, args.cohort, 1
  config.rounds = 10**6  # more than are timed
  count = args.steps * args.batch
  images = np.array(timing.random_images(k * count, args.size))
  start = Start(work.online, np.split(np.arange(k * count), k), 0)
  saved = checkpoint.Checkpoints(folder / 'checkpoints', keep=1)
  federation: Any
  some: Any = dict(recipe=build.recipe(config), examples=images)
  if name == 'device':
    federation = clients_on_device.ClientsOnDevice(
        [start], [saved], layout=device_mesh.Layout(k, None), **some)
  else:
    federation = clients_streamed.ClientsStreamed(
        start, saved, layout=device_mesh.Layout(args.cohort, None),
        make_store=(client_store.InMemory if name == 'host'
                    else functools.partial(client_store.OnDisk,
                                           folder=folder / 'clients')),
        **some, **choices)
  saved.close()
  began = time.time()
  federation.compile()
  compile_seconds = time.time() - began
  federation.advance()
  found: Any = federation.compiled.memory_analysis()
  lying = sum(x.nbytes for x in jax.live_arrays()) - before
  return federation, dict(
      clients=k, store=name, start=work.online,
      compile_seconds=compile_seconds, device_bytes=(
          lying + found.temp_size_in_bytes + found.output_size_in_bytes
          - found.alias_size_in_bytes))


def _traffic(args, folder):
  """Times the moving of clients, and how much of it training hides."""
  case = argparse.Namespace(**{**vars(args), 'width': args.traffic_width,
                               'hidden': 512, 'features': 256})
  federations = {
      overlap: _case(case, 4 * args.cohort, 'host', folder / f'{overlap}',
                     overlap=overlap)[0] for overlap in (True, False)}
  moved: list[float] = []

  def timed(method):
    def call(*values):
      began = time.perf_counter()
      result = method(*values)
      moved[-1] += time.perf_counter() - began
      return result
    return call
  waiting = federations[False]
  waiting.fetch = timed(waiting.fetch)
  waiting.put_back = timed(waiting.put_back)

  def wait():
    moved.append(0.)
    return waiting.advance()
  seconds = timing.interleave(
      {'behind': federations[True].advance, 'waiting': wait}, args.repetitions)
  traffic = moved[-args.repetitions:]
  show = timing.quiet(args)
  show('clients move behind training', seconds['behind'], 'ms', 1e3)
  show('the device waits for clients', seconds['waiting'], 'ms', 1e3)
  show('  time to move clients', traffic, 'ms', 1e3)
  hidden = [(b - a) / t for a, b, t in zip(
      seconds['behind'], seconds['waiting'], traffic, strict=True)]
  return dict(traffic_over_round=timing.ratio(traffic, seconds['waiting']),
              traffic_hidden=statistics.median(hidden))


def _plot(path, names, counts, rows, seconds):
  """Plots time and device memory of a round by the number of clients."""
  import matplotlib

  from fedu_jax.experiments import figures
  with matplotlib.rc_context(figures.STYLE):
    figure, (left, right) = figures.canvas(9, 3.6, ncols=2)
    for i, name in enumerate(names):
      cases = [f'{name}, {k} clients' for k in counts]
      middle = np.array([1e3 * statistics.median(seconds[x]) for x in cases])
      low, high = (np.array([1e3 * pick(seconds[x]) for x in cases])
                   for pick in (min, max))
      colour = figures.colour(name, i)
      left.errorbar(counts, middle, [middle - low, high - middle], marker='o',
                    capsize=3, label=name, color=colour)
      right.plot(counts, [rows[x]['device_bytes'] / 1e6 for x in cases],
                 marker='o', label=name, color=colour)
    for axes in (left, right):
      axes.set_xscale('log')
      axes.set_xlabel('clients')
    left.set_ylabel('a round, ms')
    left.set_ylim(bottom=0)
    right.set_yscale('log')
    right.set_ylabel('device memory, MB')
    right.legend(title='store')
    figure.savefig(path)


if __name__ == '__main__':
  main()
