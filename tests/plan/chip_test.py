"""Rounds of a tiny network, by the compilers for GPUs and TPUs.

No such chip is needed. A compiler that is not installed skips its tests. Each
program is compiled once, in a process of its own.
"""

import functools
from typing import NamedTuple

import pytest

from configs import smoke
from fedu_jax.plan import chip_files
from fedu_jax.plan import chip_process
from fedu_jax.plan.chip_process import CompiledRound
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import forecast
from fedu_jax.training.config import checks
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import memory_needs

# Four clients of two steps; their networks are large beside a step's needs. By
# itself an H100 would train clients of so small a network at once.
_SMALL = {'clients': 4, 'execution': 'map', 'model.dtype': 'bfloat16',
          'model.hidden': 512, 'model.features': 256}
# One device; one a client; one client at a time from a store.
CASES = {
    'device': (1, {}), 'mesh': (4, {}),
    'slices': (1, {'clients_per_device': 1, 'store': 'host'})}
# What is compiled, since each takes half a minute of CPU time.
COMPILED = {'h100': ('device', 'mesh', 'slices'), 'v5e': ('mesh',)}


class Case(NamedTuple):
  """A compiled round, and the sizes that were foreseen for it."""
  compiled: CompiledRound
  sizes: cost_model.Sizes


@functools.lru_cache
def case(chip: str, name: str) -> Case:
  described = chip_files.load(chip)
  if lacking := chip_process.missing(described.compiler):
    pytest.skip(lacking)
  chips, changes = CASES[name]
  changes = _SMALL | changes
  found = chip_process.compile_round(described, [
      '--config=configs/smoke.py', f'--chip={chip}', f'--chips={chips}',
      *(f'--config.{field}={value}' for field, value in changes.items())])
  return Case(found, sizes(chips, changes))


def sizes(chips: int, changes: dict[str, object]) -> cost_model.Sizes:
  """The sizes of a round that fits."""
  config = smoke.get_config()
  config.update_from_flattened_dict(changes)
  checks.check(config)
  return forecast.forecast(
      config, forecast.data_of(config), forecast.Machine(chips, 1e12, 1e12),
      measure=lambda one: (1, 'nothing')).sizes


@pytest.fixture(params=['h100', 'v5e'])
def chip(request):
  return request.param


def test_nothing_crosses_to_the_host_in_a_round(chip):
  for name in COMPILED[chip]:
    assert not case(chip, name).compiled.counts.host_transfers


def test_the_loop_over_steps_is_found(chip):
  """Its length is in the program, so the host is not asked."""
  for name in COMPILED[chip]:
    found = case(chip, name)
    step = found.compiled.counts.step
    assert step.trips == 2 and step.turns == 2 * found.sizes.at_once
    assert all(loop.trips for loop in found.compiled.counts.loops)


def test_a_step_has_no_conditional_and_no_copy_of_its_carry(chip):
  for name in COMPILED[chip]:
    found = case(chip, name)
    step = found.compiled.counts.step
    assert not step.conditionals
    assert step.carry_copied < 0.05 * found.sizes.state


def test_each_step_is_there_once(chip):
  """No compiler trains twice. One did, for one client a device."""
  for name in COMPILED[chip]:
    counts = case(chip, name).compiled.counts
    assert sum(loop.products > counts.step.products / 2
               for loop in counts.loops) == 1


def test_a_round_on_a_mesh_has_one_all_reduce(chip):
  """Of the sum of uploads; clients are never gathered."""
  (found,) = case(chip, 'mesh').compiled.counts.collectives
  assert (found.kind, found.times) == ('all-reduce', 1)
  upload = case(chip, 'mesh').sizes.upload
  assert found.bytes == pytest.approx(upload, rel=0.02)
  if 'device' in COMPILED[chip]:
    assert not case(chip, 'device').compiled.counts.collectives


@pytest.mark.parametrize('name', ['device', 'mesh', 'slices'])
def test_states_are_written_in_place(name):
  """All arguments are donated, but images, their number, ids and the key."""
  counts = case('h100', name).compiled.counts
  assert 0 < counts.arguments - counts.donated <= (
      60 if name == 'slices' else 3)


@pytest.mark.parametrize('name', ['device', 'mesh', 'slices'])
def test_memory_is_foreseen(name):
  """Without working memory: what is checked before a round is compiled."""
  found = case('h100', name)
  least = cost_model.program_at_least(found.sizes)
  assert found.sizes.store == ('host' if name == 'slices' else 'device')
  kept = found.sizes.server + found.sizes.at_once * (
      found.sizes.state + found.sizes.images)
  assert kept <= found.compiled.arguments <= kept + (
      2 * found.sizes.upload + 1000)
  assert least < found.compiled.peak


def test_slices_fit_where_all_clients_do_not():
  """The advice of a plan that does not fit is true."""
  whole, slices = case('h100', 'device'), case('h100', 'slices')
  needed = cost_model.device_memory(slices.sizes, slices.compiled.peak).value
  machine = memory_needs.Machine(needed, 1e12)
  assert not memory_needs.lacking(slices.sizes, machine, slices.compiled.peak)
  assert memory_needs.lacking(whole.sizes, machine, whole.compiled.peak)
  assert memory_needs.lacking(whole.sizes, machine)  # before it is compiled


def test_a_missing_compiler_is_one_line(monkeypatch):
  """It says what to install, and starts no process."""
  monkeypatch.setattr(chip_process.importlib.util, 'find_spec',
                      lambda name: None)
  for name, extra in (('l4', 'chip-gpu'), ('v6e', 'chip-tpu')):
    with pytest.raises(BadInput) as refused:
      chip_process.compile_round(chip_files.load(name), [])
    assert f"pip install 'fedu_jax[{extra}]'" in str(refused.value)
