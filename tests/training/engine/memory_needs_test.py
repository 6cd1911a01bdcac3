"""The memory that a federation needs, and the error if there is less."""

import pathlib

import jax
import pytest
from rich.console import Console

from configs import cifar10
from configs import smoke
from fedu_jax.runtime import checkpoint
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import finished_run
from fedu_jax.training import forecast
from fedu_jax.training import prepare
from fedu_jax.training import train
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import clients_on_device
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import memory_needs
from fedu_jax.training.engine import placement
from fedu_jax.training.engine import round_program
from tests.helpers import tiny

HUGE = 10**15


def config_of(module=tiny, **changes):
  config = module.get_config()
  config.update_from_flattened_dict(changes)
  checks.check(config)
  return config


def needs(config, shape=(32, 32, 3), examples=10_000, groups=1):
  """Returns the sizes of a federation of equal clients, and of the state."""
  recipe = build.recipe(config)
  server, client, _ = forecast.shapes(recipe, shape)
  sizes = memory_needs.sizes_of(
      recipe, server, client, [examples] * config.clients,
      image=shape[0] * shape[1] * 3, data=0, groups=groups,
      at_once=config.clients_per_device or config.clients)
  return sizes._replace(store=placement.store_of(
      recipe, sizes, memory_needs.Machine(80e9, 2e12)))


def refusal(config, sizes, device=80e9, host=2e12, shared_by=0, **more):
  with pytest.raises(BadInput) as found:
    memory_needs.check(build.recipe(config), sizes,
                       memory_needs.Machine(device, host, shared_by), **more)
  return str(found.value)


def test_256_clients_of_the_paper_do_not_fit_80_gb():
  """K S fits, with 62 GB; a round needs K (2 S + U) and images, 170 GB."""
  config = config_of(cifar10, clients=256)
  sizes = needs(config)
  assert sizes.store == 'device'
  assert 256 * sizes.state < 80e9 < 256 * (2 * sizes.state + sizes.upload)
  said = refusal(config, sizes)
  assert 'at least memory of a device (171 GB of 80 GB)' in said
  for words in ('clients_per_device below 256', 'config.cohort',
                'more devices', 'smaller config.model'):
    assert words in said
  memory_needs.check(
      build.recipe(config), needs(config_of(cifar10, clients=100)),
      memory_needs.Machine(80e9, 2e12))


@pytest.mark.parametrize('changes, groups, fits', [
    ({'clients_per_device': 8}, 1, True),
    ({'clients_per_device': 8, 'store': 'disk'}, 1, True),
    ({'clients_per_device': 200}, 1, False),
    ({'cohort': 10}, 1, True),  # `auto` leaves the others on the host
    ({'cohort': 10, 'store': 'device'}, 1, True),  # 62 GB, and 10 train
    ({'cohort': 100, 'store': 'device'}, 1, False),
    ({}, 4, True), ({}, 2, False)])
def test_what_makes_it_fit(changes, groups, fits):
  config = config_of(cifar10, clients=256, **changes)
  sizes = needs(config, groups=groups)
  found = memory_needs.lacking(sizes, memory_needs.Machine(80e9, 2e12))
  assert bool(found) != fits, found


def test_the_compilers_figure_counts_once_it_is_known():
  """It has temporaries, which no formula knows; the advice is smaller batches.
  """
  config = config_of(cifar10)
  sizes = needs(config)
  assert not memory_needs.lacking(sizes, memory_needs.Machine(80e9, 2e12))
  said = refusal(config, sizes, program=int(90e9))
  assert 'memory of a device (90.2 GB of 80 GB)' in said
  assert 'at least' not in said
  assert 'lower config.batch_size, or set config.model.dtype' in said


def test_seeds_that_run_together_take_as_many_times_as_much():
  config = config_of(cifar10, clients=60)
  sizes = needs(config)
  memory_needs.check(build.recipe(config), sizes,
                     memory_needs.Machine(80e9, 2e12))
  assert 'run fewer seeds together' in refusal(config, sizes, together=3)


def test_devices_without_memory_of_their_own_share_the_hosts():
  """Eight CPU devices of one process share the host's memory."""
  config = config_of(cifar10, clients=64, devices='8')
  sizes = needs(config, groups=8)
  each = cost_model.device_memory(sizes).value
  assert each < 10e9
  assert not memory_needs.lacking(sizes, memory_needs.Machine(10e9, 2e12))
  assert 'memory of the host' in refusal(
      config, sizes, device=10e9, host=4 * each, shared_by=8)
  memory_needs.check(build.recipe(config), sizes,
                     memory_needs.Machine(10e9, 9 * each, 8))


def test_a_host_without_room_for_the_store():
  config = config_of(cifar10, clients=1000, cohort=10, store='host')
  sizes = needs(config)
  said = refusal(config, sizes, host=200e9)
  assert 'the host (246 GB of 200 GB): set config.store to disk' in said


def member(config, folder):
  data = prepare.data_of(config)
  _, online = prepare.networks_of(config, data)
  return data, prepare.Member(
      'federation', folder, prepare.parts_of(config, data), online, config.seed,
      None, Console(quiet=True))


def test_a_round_is_compiled_once_and_is_no_smaller_than_the_formula(tmp_path):
  """The run uses the program that checked its memory."""
  config = config_of(**{'model.hidden': 512, 'model.features': 256})
  data, one = member(config, tmp_path)
  recipe = build.recipe(config).with_full_steps([list(map(len, one.parts))])
  where = placement.choose(recipe, one.online, data.train_images,
                           one.parts, num_members=1)
  shape = data.train_images.shape[1:]
  foreseen = forecast.compile_round(
      recipe, round_program.shapes(recipe, one.online, shape),
      jax.ShapeDtypeStruct((max(map(len, one.parts)), *shape), 'uint8'),
      layout=where.layout, rows=len(one.parts), store='device')
  saved = checkpoint.Checkpoints(tmp_path / 'checkpoints', keep=1)
  run = clients_on_device.ClientsOnDevice(
      [one.start], [saved], recipe=recipe, examples=data.train_images,
      layout=where.layout)
  run.compile()
  saved.close()
  assert (run.compiled.runtime_executable()
          is foreseen.runtime_executable())
  sizes = where.sizes
  assert (sizes.clients * (2 * sizes.state + sizes.upload)
          < cost_model.program_at_least(sizes)
          < cost_model.peak_memory(foreseen)
          < 2 * cost_model.program_at_least(sizes))


@pytest.mark.parametrize('free, compiles', [(10**4, 0), (10**9, 1)])
def test_a_refusal_touches_nothing(free, compiles, tmp_path, monkeypatch):
  """By the formula before compilation, or else by the compiler's figure."""
  seen = []
  monkeypatch.setattr(forecast, 'compile_round', lambda *_, **__: seen.append(
      0) or 'compiled')
  monkeypatch.setattr(cost_model, 'peak_memory', lambda _: HUGE)
  monkeypatch.setattr(host_memory, 'free_bytes', lambda: free)
  folder = tmp_path / 'run'
  with pytest.raises(BadInput, match='a round needs more memory than there is'):
    train.train(config_of(), str(folder), console=Console(quiet=True))
  assert not folder.exists() and len(seen) == compiles


def test_a_compiler_is_not_started_without_memory(tmp_path, monkeypatch):
  """It would abort the process."""
  monkeypatch.setattr(host_memory, 'free_bytes', lambda: 10**8)
  with pytest.raises(BadInput, match='compiling a round takes 0.27 GB'):
    train.train(config_of(), str(tmp_path / 'run'), console=Console(quiet=True))
  assert not (tmp_path / 'run').exists()


def test_memory_that_runs_out_in_a_round_leaves_a_run(tmp_path, monkeypatch):
  """One line and a code of its own; saved files are unchanged."""
  folder = tmp_path / 'run'
  config = config_of(rounds=2)
  advance = clients_on_device.ClientsOnDevice.advance

  def runs_out(self):
    if self.done == 1:
      raise jax.errors.JaxRuntimeError(
          'RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.')
    return advance(self)
  with monkeypatch.context() as patched:
    patched.setattr(clients_on_device.ClientsOnDevice, 'advance', runs_out)
    with pytest.raises(host_memory.OutOfMemory, match='ran out: .*12345 bytes.*'
                       'what is saved stays'):
      train.train(config, str(folder), console=Console(quiet=True))
  assert finished_run.rounds_of(pathlib.Path(folder), 'federation') == 1
  train.train(config, str(folder), console=Console(quiet=True))
  assert finished_run.rounds_of(pathlib.Path(folder), 'federation') == 2


@pytest.mark.parametrize('lengths, changes, full', [
    ([[100, 127]], {}, True),  # 3 batches of 32 each
    ([[100, 128]], {}, False),
    ([[100, 100], [100, 95]], {}, False),  # another seed's clients
    ([[100, 100]], {'participation.stragglers': 0.5}, False),
    ([[100] * 4], {'clients': 4, 'clients_per_device': 2}, True),
    ([[100] * 3], {'clients': 3, 'clients_per_device': 2}, False)])  # padding
def test_no_step_is_skipped_if_all_clients_do_as_many(lengths, changes, full):
  config = config_of(batch_size=32, **{'clients': 2} | changes)
  found = build.recipe(config).with_full_steps(
      lengths, slice_=config.clients_per_device)
  assert found.full_steps == full


def test_choices_are_the_backends():
  config = config_of()
  assert not build.recipe(config, 'cpu').packed
  assert not build.recipe(config).nets.together
  assert build.recipe(config, 'gpu').packed
  assert build.recipe(config_of(smoke), 'gpu').nets.together
  assert not build.recipe(config_of(smoke), 'tpu').nets.together
  shared = config_of(smoke, devices_per_client=2)
  assert not build.recipe(shared, 'gpu').nets.together
  assert build.recipe(shared).masks_steps
