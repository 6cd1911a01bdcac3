"""`auto` runs clients at once where the counts leave no doubt, and on a GPU."""

import functools

import jax
import numpy as np
import pytest

from configs import quickstart
from configs import smoke
from fedu_jax.core import rounds
from fedu_jax.core.state import ClientArrays
from fedu_jax.plan import chip_files
from fedu_jax.plan import chip_model
from fedu_jax.plan.program_counts import Work as Counts
from fedu_jax.training import forecast
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import backend_choices
from fedu_jax.training.engine import client_execution
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.client_execution import Work
from tests.helpers import small

IMAGE = (8, 8, 3)
# By `benchmarks.chip_bench`, BYOL in bfloat16 on an H100, see RECORDS: the work
# that the choice depends on, clients, kernels and bytes of a step by map and
# vmap. The copies are among them.
WIDE, NARROW = Work(72, 153841920, 33554432), Work(72, 105675840, 8388608)
COUNTED = [
    (WIDE, 5, (486, 8.904e9), (596, 67.83e9)),
    (WIDE, 32, (486, 8.904e9), (598, 442.8e9)),
    (NARROW, 5, (476, 3.234e9), (558, 19.59e9)),
    (NARROW, 32, (476, 3.234e9), (593, 129.2e9)),
    (Work(72, 101479440, 4194304), 5, (464, 1.876e9), (549, 9.810e9)),
    # With small heads; a ResNet-6 on images of 8 pixels.
    (Work(72, 2421280, 4194304), 5, (467, 1.071e9), (552, 7.262e9)),
    (Work(30, 50848, 65536), 5, (202, 0.0101e9), (248, 0.0779e9))]


def config_of(module=quickstart, **changes):
  config = module.get_config()
  config.update_from_flattened_dict(changes)
  return checks.checked(config)


@functools.cache
def online(width=16):
  recipe = build.recipe(config_of(**{'model.width': width}))
  return forecast.shapes(recipe, IMAGE)[0].online


def chosen(config, clients=5, device='NVIDIA H100 80GB HBM3',
           lengths=(64,) * 5):
  recipe = build.recipe(config, 'gpu', device).with_full_steps([lengths])
  return client_execution.of(recipe, online(config.model.width), IMAGE,
                             clients=clients)


@pytest.mark.parametrize('chip', ['h100', 'h200', 'a100', 'l4'])
@pytest.mark.parametrize('work, clients, map_, vmap', COUNTED)
def test_the_choice_is_that_of_the_plans_model(chip, work, clients, map_, vmap):
  """`vmap` runs if its sum of times is below the longest time of `map`."""
  found = chip_files.load(chip)
  quick = found._replace(launch_microseconds=1.0)
  least = clients * chip_model.times(Counts(*map_), 0, quick, 'bfloat16').least
  most = chip_model.times(Counts(*vmap), 0, found, 'bfloat16').most
  assert client_execution.at_once(work, clients, found.bandwidth) == (
      most < least)


def test_bandwidths_are_those_of_the_chip_files():
  for name in chip_files.names():
    chip = chip_files.load(name)
    found = backend_choices.choices(chip.compiler, chip.name)
    assert found.bandwidth == (
        chip.bandwidth if chip.compiler == 'gpu' else 0)


@pytest.mark.parametrize('device, chip', [
    ('NVIDIA H100 80GB HBM3', 'h100'), ('NVIDIA A100-SXM4-80GB', 'a100'),
    ('NVIDIA L4', 'l4'), ('NVIDIA L40S', ''), ('', '')])
def test_devices_are_known_by_their_names(device, chip):
  assert backend_choices.choices('gpu', device).bandwidth == (
      chip and chip_files.load(chip).bandwidth or 0)


def test_the_largest_map_is_that_of_the_first_stage():
  found = client_execution.largest_map(
      small.NETS.encoder, jax.eval_shape(small.online).encoder,
      (small.BATCH, small.SIZE, small.SIZE, 3))
  assert found == small.BATCH * small.SIZE**2 * 2 * 4  # width 2, f32


def test_small_steps_of_some_clients_run_at_once():
  assert chosen(config_of()) == chosen(config_of(), 32) == 'vmap'
  assert chosen(config_of(), 2) == chosen(config_of(), 33) == 'map'
  assert chosen(config_of(**{'model.width': 64, 'batch_size': 128}),
                lengths=(256,) * 5) == 'map'
  assert chosen(config_of(), device='NVIDIA L4') == 'map'
  assert chosen(config_of(), device='of no known name') == 'map'


def test_a_choice_of_the_config_and_skipped_steps_count_first():
  assert chosen(config_of(execution='map')) == 'map'
  assert chosen(config_of(execution='vmap'), 1, device='') == 'vmap'
  assert chosen(config_of(), lengths=(64, 96, 64, 64, 64)) == 'map'
  assert chosen(config_of(**{'participation.stragglers': 0.5})) == 'map'
  assert chosen(config_of(devices_per_client=2)) == 'map'


def test_a_cpu_and_a_tpu_run_one_after_the_other():
  for backend in ('', 'cpu', 'tpu'):
    recipe = build.recipe(config_of(), backend).with_full_steps([[64] * 5])
    assert client_execution.of(recipe, small.online(), IMAGE,
                               clients=5) == 'map'


def test_a_round_is_compiled_as_is_chosen(monkeypatch):
  asked = []

  def run_round(server, clients, batches, rng, *, execution, **_):
    asked.append(execution)
    return server, clients, {}
  monkeypatch.setattr(rounds, 'run_round', run_round)
  for device in ('', 'NVIDIA H100'):
    recipe = build.recipe(config_of(smoke), 'gpu', device).with_full_steps(
        [[64] * 3])
    server, client, rng = forecast.shapes(recipe, IMAGE)
    clients, arrays = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), (
            client, ClientArrays(
                jax.ShapeDtypeStruct((64, *IMAGE), np.uint8),
                jax.ShapeDtypeStruct((), np.int32))))
    jax.eval_shape(round_program.make_round(recipe, 3), server, clients, arrays,
                   rng)
  assert asked == ['map', 'vmap']
