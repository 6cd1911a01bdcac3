"""Compares the device memory that `fedu_jax.plan` predicts with that of runs.

  python -m benchmarks.plan_check --data_dir=../shared/tfds
  XLA_FLAGS=--xla_force_host_platform_device_count=4 \\
      python -m benchmarks.plan_check --data_dir=../shared/tfds

Each case is prepared from its real data, as `fedu_jax.main` does, up to the
first round; if clients are streamed, one round runs. Two figures are compared:
the compiler's figure for the program, and the program's temporary memory plus
all arrays on the first device while it runs. With four devices, only the cases
for several devices are done.
"""

import argparse
import contextlib
import math
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import ml_collections

from configs import cifar10
from configs import cifar10_small
from configs import quickstart
from configs import smoke
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training import forecast
from fedu_jax.training import prepare
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import client_store
from fedu_jax.training.engine import clients_on_device
from fedu_jax.training.engine import clients_streamed
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import placement
from fedu_jax.training.engine.federation import Start

_ONE, _FOUR = {'devices': '1'}, {'devices': '4'}
_NARROW, _SOME = {'model.width': 8}, {'model.width': 16, 'batch_size': 32}
_VMAP = {'execution': 'vmap'}
# 8 of these clients train, at once or in two slices.
_HUNDRED = {'clients': 100, 'cohort': 8, 'partition.name': 'iid',
            'store': 'host'}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    'smoke': (smoke, _ONE), 'smoke, vmap': (smoke, _ONE | _VMAP),
    'quickstart': (quickstart, _ONE),
    'quickstart, vmap': (quickstart, _ONE | _VMAP),
    'cifar10_small, width 8': (cifar10_small, _ONE | _NARROW),
    'cifar10_small, width 8, vmap': (cifar10_small, _ONE | _NARROW | _VMAP),
    'cifar10_small, width 8, 8 of 100': (
        cifar10_small, _ONE | _NARROW | _HUNDRED),
    'cifar10_small, width 8, 8 of 100, 4 at once': (
        cifar10_small, _ONE | _NARROW | _HUNDRED | {'clients_per_device': 4}),
    'cifar10, width 16, batch 32': (cifar10, _ONE | _SOME),
    'cifar10, width 16, batch 32, vmap': (cifar10, _ONE | _SOME | _VMAP),
    'smoke, 4 devices': (smoke, _FOUR),
    'cifar10_small, width 8, 4 devices': (cifar10_small, _FOUR | _NARROW),
    'cifar10_small, width 8, 8 of 100, 4 devices': (
        cifar10_small, _FOUR | _NARROW | _HUNDRED),
    'cifar10_small, width 8, 2 devices a client': (
        cifar10_small, _FOUR | _NARROW | {'devices_per_client': 2})}


class Found(NamedTuple):
  """Bytes on a device, predicted and of a run."""
  program: int
  program_of_run: int
  device: float
  device_of_run: int


def main() -> None:
  """Prints a row for each case."""
  flags = argparse.ArgumentParser(
      description=(__doc__ or '').splitlines()[0])
  flags.add_argument('--data_dir', default='', help="TFDS's root")
  flags.add_argument('--only', default='', help='a part of the cases\' names')
  args = flags.parse_args()
  several = len(jax.devices()) > 1
  print('| case | program: predicted, of the run, MB | ratio | device: '
        'predicted, of the run, MB | ratio |\n|---|---|---|---|---|')
  for name, (module, changes) in CASES.items():
    if args.only not in name or several != (changes['devices'] == '4'):
      continue
    config = module.get_config()
    config.update_from_flattened_dict(changes | {
        'data.dir': args.data_dir, 'local_epochs': 1, 'evaluation.alone': 0})
    with tempfile.TemporaryDirectory() as folder:
      found = compare(config, pathlib.Path(folder))
    mega = [x / 1e6 for x in found]
    print(f'| {name} | {mega[0]:.2f}, {mega[1]:.2f} | '
          f'{mega[0] / mega[1]:.3f} | {mega[2]:.2f}, {mega[3]:.2f} | '
          f'{mega[2] / mega[3]:.3f} |', flush=True)


def compare(config: ml_collections.ConfigDict, folder: pathlib.Path) -> Found:
  """Predicts the memory of a config, then starts its run and measures it.

  Args:
    config: a complete config, for the devices here or fewer.
    folder: an empty folder for the run.
  """
  checks.check(config)
  found = forecast.forecast(config, forecast.data_of(config), forecast.Machine(
      0, placement.device_bytes(), host_memory.host_bytes()))
  of_run = _run(config, folder)
  return Found(
      found.program, of_run[0],
      cost_model.device_memory(found.sizes, found.program).value, of_run[1])


def _run(config, folder) -> tuple[int, int]:
  """Measures the bytes of a round's program, and of a device during it."""
  data = prepare.data_of(config)
  parts = prepare.parts_of(config, data)
  before = _lying()
  _, online = prepare.networks_of(config, data)
  recipe = build.recipe(config)
  where = placement.choose(recipe, online, data.train_images, parts,
                           num_members=1)
  start = Start(online, parts, config.seed)
  some: Any = dict(recipe=recipe, examples=data.train_images,
                   layout=where.layout)
  with contextlib.closing(Checkpoints(folder / 'checkpoints', keep=1)) as saved:
    if where.store == 'device':
      one: Any = clients_on_device.ClientsOnDevice([start], [saved], **some)
    else:
      one = clients_streamed.ClientsStreamed(
          start, saved, make_store=client_store.InMemory, **some)
  one.compile()
  seen = []
  if where.store == 'device':
    # A round replaces its state in place, and moves nothing to the device.
    seen.append(_lying() - before)
  else:
    fetch = one.fetch

    def watched(*args):
      fetched = fetch(*args)
      seen.append(_lying() - before)  # while the earlier slice trains
      return fetched
    one.fetch = watched
    one.advance()
  found: Any = one.compiled.memory_analysis()
  return (cost_model.peak_memory(one.compiled),
          max(seen) + found.temp_size_in_bytes)


def _lying() -> int:
  """The bytes of all arrays, or shards, on the first device."""
  first = jax.devices()[0]
  return sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape))
             for x in jax.live_arrays() if first in x.sharding.device_set)


if __name__ == '__main__':
  main()
