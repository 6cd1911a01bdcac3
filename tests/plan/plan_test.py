"""The predictions of the plan, compared with runs."""

import io
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from benchmarks import plan_check
from fedu_jax.plan import plan_report
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import forecast
from fedu_jax.training import step_cost
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import memory_needs
from fedu_jax.training.engine import placement
from tests.helpers import tiny

ROOT = pathlib.Path(__file__).parents[2]
SIZES = cost_model.Sizes(
    clients=1000, cohort=10, groups=1, group=1, share=10, at_once=5,
    store='host', state=7, upload=5, download=4, network=3, server=6,
    images=3, data=3000,
    images_trained=40., steps=20., rounds=9, checkpoints=2, every=3)
RATES = cost_model.Rates(compute=2., link=1e9, network=10., uplink=0.5)


def config_of(**changes):
  config = tiny.get_config()
  config.update_from_flattened_dict(changes)
  checks.check(config)
  return config


def machine(chips=1, memory=1e12):
  return forecast.Machine(chips, memory, memory)


def look(config, chips=1):
  return forecast.forecast(config, forecast.data_of(config), machine(chips))


# --- memory ----------------------------------------------------------------


@pytest.mark.parametrize('changes', [
    {'execution': 'vmap'},
    {'clients': 8, 'cohort': 4, 'clients_per_device': 2, 'store': 'host'}],
    ids=['on_device', 'streamed'])
def test_memory_is_what_a_run_takes(changes, tmp_path):
  """The compiler's figure for the program that ran, and with all other arrays.
  """
  with jax.numpy_rank_promotion('allow'):
    found = plan_check.compare(
        config_of(devices='1', **changes), tmp_path / 'run')
  assert found.program == pytest.approx(found.program_of_run, rel=0.002)
  assert found.device == pytest.approx(found.device_of_run, rel=0.15)
  # This network is a small part of the program, so other arrays count alone.
  assert found.device - found.program == pytest.approx(
      found.device_of_run - found.program_of_run, abs=4000)


@pytest.mark.parametrize('chips, groups, at_once', [(1, 1, 8), (3, 3, 3),
                                                    (500, 8, 1)])
def test_devices_that_are_not_here(chips, groups, at_once, monkeypatch):
  """It compiles one device's share, and adds memory for the all-reduce.

  The command has two groups of devices, and the all-reduce is in the program.
  """
  compiled = []
  monkeypatch.setattr(
      forecast.round_program, 'compile_round',
      lambda recipe, server, clients, *_, layout: compiled.append(
          clients.num_examples.shape))
  monkeypatch.setattr(cost_model, 'peak_memory', lambda _: 10**6)
  found = look(config_of(clients=8), chips)
  assert (found.sizes.groups, found.sizes.at_once) == (groups, at_once)
  assert compiled == [(at_once,)]
  assert found.program == 10**6 + (2 * found.sizes.upload if chips > 1 else 0)
  assert ('and 2 U' in found.note) == (chips > 1)


def test_a_plan_of_chunks(monkeypatch):
  """It compiles the program of a chunk, which runs once for each chunk."""
  compiled = []
  monkeypatch.setattr(
      forecast.chunk_programs, 'compile_steps',
      lambda recipe, shapes, layout, client: compiled.append(
          (shapes.batch.shape, shapes.most, shapes.length, layout.padded)))
  monkeypatch.setattr(cost_model, 'peak_memory', lambda _: 10**6)
  config = config_of(feed='chunks', chunk_steps=3, batch_size=16)
  found = look(config)
  sizes = found.sizes
  batch = (16, 8, 8, 3)
  assert (sizes.batch, sizes.chunk) == (16 * 192, 3 * 16 * 192)
  assert (sizes.store, sizes.at_once) == ('host', 1)
  assert compiled == [(batch, sizes.images // 192, 3, 1)]
  assert sizes.runs == -(-sizes.steps // 3)
  assert found.working == 10**6 - sizes.state - sizes.chunk
  assert cost_model.device_memory(sizes, found.program).value == (
      10**6 + sizes.network + sizes.server + sizes.upload + 3 * sizes.state
      + sizes.chunk)
  moved = next(line for line in cost_model.traffic(sizes)
               if line.what == 'from the store and back')
  assert moved.value == (2 * sizes.cohort * sizes.state
                         + sizes.steps * sizes.batch)
  console = Console(record=True, width=200, file=io.StringIO())
  plan_report.show_feed(sizes, 0.5, console)
  said = console.export_text()
  assert '3.07 kB a step' in said and 'less than 6.14 kB/s' in said


# --- arithmetic ------------------------------------------------------------


def test_operations_are_counted_as_often_as_they_are_done():
  a, b = jnp.zeros((2, 3)), jnp.zeros((3, 3))
  kernel, image = jnp.zeros((3, 3, 4, 8)), jnp.zeros((2, 6, 6, 4))

  def loop(a, b):
    return jax.lax.scan(lambda a, _: (jax.jit(jnp.matmul)(a, b), None), a,
                        length=5)

  def strided(image, kernel):
    return jax.lax.conv_general_dilated(
        image, kernel, (2, 2), ((1, 1), (1, 1)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC')).sum()
  assert step_cost.operations(jax.make_jaxpr(loop)(a, b)) == 5 * 2 * 2 * 3 * 3
  forward = 2 * (2 * 3 * 3 * 8) * (3 * 3 * 4)
  assert step_cost.operations(jax.make_jaxpr(strided)(image, kernel)) == forward
  # The gradients need neither the sum nor the layer's own output.
  both = jax.make_jaxpr(jax.grad(strided, (0, 1)))(image, kernel)
  assert step_cost.operations(both) == pytest.approx(2 * forward, rel=0.01)


def test_a_step_is_eight_passes_of_the_network():
  """Two views: one pass each of the target, three of the online network.

  No gradient is taken with respect to the images and the crops.
  """
  config = config_of()
  width, side = config.model.width, 8
  convs = [(3, 3, width, side), (3, width, width, side),
           (3, width, width, side), (3, width, 2 * width, side // 2),
           (3, 2 * width, 2 * width, side // 2),
           (1, width, 2 * width, side // 2)]
  encode = sum(2 * k * k * c * f * s * s for k, c, f, s in convs)
  first = 2 * 3 * 3 * 3 * width * side * side
  hidden, features = config.model.hidden, config.model.features
  head = 2 * (2 * width * hidden + hidden * features)
  predict = 2 * 2 * hidden * features
  passes = 2 * (3 * (encode + head + predict) + encode + head - first)
  crops = 2 * 2 * 2 * side * side * side * 3
  client = forecast.shapes(build.recipe(config), (side, side, 3))[1]
  found = step_cost.per_image(
      build.recipe(config), client, jax.ShapeDtypeStruct(
          (side, side, 3), jnp.uint8))
  assert found == pytest.approx(passes + crops, rel=0.02)


def test_a_round_sends_what_it_must():
  sent = {n: [x.value for x in cost_model.traffic(SIZES._replace(groups=n))]
          for n in (1, 2, 1000)}
  assert sent[1] == [40, 50, 0, 10 * (2 * 7 + 3), 0]
  assert sent[2][2] == 2 * 5  # in two slices
  assert sent[1000][2] == pytest.approx(2 * 2 * 5, rel=0.01)
  at_home = cost_model.traffic(SIZES._replace(store='device'))
  assert at_home[3].value == 0


def times(sizes, **rates):
  lines = cost_model.seconds(sizes, RATES._replace(**rates), 3.,
                             cost_model.traffic(sizes))
  return {line.what: line.value for line in lines}


def test_a_round_takes_its_longest_part():
  found = times(SIZES)
  save = (6 + 1000 * 7) / 3 / 1e9
  assert found['training'] == 40 * 3 / 2
  assert found['a round'] == found['training'] + save
  assert found['all rounds'] == 9 * found['a round']
  assert times(SIZES, link=1.)['a round'] == 170 + 1e9 * save
  spread = times(SIZES._replace(groups=2, images_trained=20.))
  assert spread['a round'] == pytest.approx(20 * 3 / 2 + 10 / 10 + save)
  assert cost_model.longest(cost_model.deployed(SIZES, RATES)) == (
      'a client uploads (10 s)')


def test_checkpoints_hold_all_clients_unless_they_are_files():
  on_disk = SIZES._replace(store='disk')
  assert cost_model.saved(SIZES) == 6 + 1000 * 7
  assert cost_model.saved(on_disk) == 6 + 1000 * 4
  # Two checkpoints; no more files than clients that have trained.
  assert cost_model.disk(SIZES).value == 2 * (6 + 1000 * 7)
  assert cost_model.disk(on_disk).value == 2 * (6 + 1000 * 4) + 9 * 10 * 7
  longer = on_disk._replace(rounds=10**6)
  assert cost_model.disk(longer).value == (
      2 * (6 + 1000 * 4) + (1000 + 2 * 3 * 10) * 7)


def test_memory_of_the_host_by_store():
  more = SIZES._replace(clients=10**6)
  grown = {store: cost_model.host_memory(more._replace(store=store)).value
           - cost_model.host_memory(SIZES._replace(store=store)).value
           for store in ('host', 'disk')}
  assert grown == {'host': (10**6 - 1000) * 7, 'disk': 0}
  assert cost_model.exceeded(cost_model.host_memory(more), 1e9) == []
  (broken,) = cost_model.exceeded(cost_model.host_memory(more), 1e6)
  assert '7 MB of 1 MB' in broken


@pytest.mark.parametrize('value, text', [
    (0, '0 B'), (999, '999 B'), (241e6, '241 MB'), (2.41e14, '241 TB')])
def test_bytes_are_readable(value, text):
  assert cost_model.of_bytes(value) == text


@pytest.mark.parametrize('value, text', [
    (0, '0 s'), (1.24e-8, '12.4 ns'), (2.1e-5, '21 us'), (0.0248, '24.8 ms'),
    (0.9998, '1 s'), (90, '90 s'), (900, '15 min'),
    (9000, '2.5 h'), (864000, '10 days')])
def test_seconds_are_readable(value, text):
  assert cost_model.of_seconds(value) == text


# --- the command -----------------------------------------------------------


@pytest.mark.parametrize('source, changes, words', [
    ('npz:none.npz', {}, 'image_size'),
    ('npz:none.npz', {'image_size': 8}, 'set --examples'),
    ('digits', {}, 'data has 1438')])
def test_what_is_not_known_is_asked_for(source, changes, words):
  config = tiny.get_config()
  config.data.source = source
  config.data.max_examples = 5000 if source == 'digits' else 0
  with pytest.raises(BadInput, match=words):
    forecast.data_of(config, **changes)


@pytest.mark.parametrize('changes, chips, words', [
    ({'batch_size': 128}, 1, 'client 0 has 80 images'),
    ({'devices_per_client': 4}, 2, 'there are 2 devices'),
    ({'cohort': 2, 'store': 'device'}, 2, 'set store to auto')])
def test_what_a_run_refuses_is_refused(changes, chips, words):
  with pytest.raises(BadInput, match=words):
    look(config_of(**changes), chips)


def test_what_cannot_fit_is_not_compiled(monkeypatch):
  monkeypatch.setattr(forecast, 'compile_round', None)
  config = config_of()
  small = machine(memory=1e5)
  found = forecast.forecast(config, forecast.data_of(config), small)
  assert found.program > 1e5 and not found.note
  assert memory_needs.lacking(found.sizes, small.memories, found.program)


def test_images_of_a_large_folder_take_no_memory(monkeypatch):
  """They stay in the cache, unlike those of other sources."""
  monkeypatch.setattr(forecast, 'compile_round', None)

  def held(source, examples):
    config = config_of()
    config.data.source, config.data.image_size = source, 64
    config.data.max_examples = examples
    return forecast.forecast(config, forecast.data_of(config),
                             machine(memory=1e5)).sizes.data
  assert held('folder:/data', 30_000) == 0
  assert held('npz:/data', 30_000) == 30_000 * 64 * 64 * 3
  assert held('folder:/data', 1000) == 1000 * 64 * 64 * 3


@pytest.mark.parametrize('channels, deep', [(1, False), (3, True), (1, True)])
def test_a_plan_knows_grey_and_deep_images(channels, deep):
  """A value of 16 bits takes two bytes, and a grey image a third."""
  planned = []

  def measure(one):
    planned.append(one)
    return 10**9, 'compiled'

  def sizes(**changes):
    config = config_of(**changes)
    return forecast.forecast(config, forecast.data_of(config), machine(),
                             measure=measure).sizes
  found, usual = sizes(**{'data.channels': channels,
                          'data.keep_depth': deep}), sizes()
  assert 3 * found.images == channels * (1 + deep) * usual.images
  assert 3 * found.data == channels * (1 + deep) * usual.data
  assert planned[0].images.shape[1:] == (8, 8, channels)
  assert planned[0].images.dtype == ('uint16' if deep else 'uint8')


def test_a_step_that_does_not_fit_here_is_not_timed(monkeypatch):
  monkeypatch.setattr(placement, 'device_bytes', lambda: 10**5)
  with pytest.raises(BadInput, match='give its speed with --rate'):
    step_cost.measured(build.recipe(config_of()), jax.ShapeDtypeStruct(
        (8, 8, 3), jnp.uint8), 1e6, seed=0)


def ask(folder, *flags):
  return subprocess.run(
      [sys.executable, '-m', 'fedu_jax.plan', *flags], text=True, cwd=ROOT,
      env=os.environ | {'TMPDIR': str(folder)}, check=False,
      capture_output=True, timeout=300)


def test_the_command(tmp_path):
  """It plans for absent devices and data, and leaves no files."""
  done = ask(tmp_path, '--config=configs/smoke.py', '--chips=256',
             '--config.clients=256', '--config.cohort=64',
             '--config.data.source=npz:none.npz', '--examples=20000',
             '--image_size=8', '--config.data.max_examples=0',
             '--memory=1e5', '--rate=1e9')
  assert done.returncode == 0, done.stderr
  for words in ('M = 64', 'n = 64', 'on the host', 'breaks first: memory of a '
                'device', 'R = 1 GFLOP/s, as given', 'all-reduce'):
    assert words in ' '.join(done.stdout.split()), done.stdout
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('flags, words', [
    ([], '--config is missing'),
    (['--config=configs/smoke.py', '--chips=-1'], 'chips')])
def test_bad_flags_are_one_line_and_code_two(flags, words, tmp_path):
  done = ask(tmp_path, *flags)
  assert done.returncode == 2
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith('error: ') and words in line
