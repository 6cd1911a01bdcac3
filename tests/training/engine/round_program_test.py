"""A round is one program. It replaces its state in place, without the host."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.core import aggregation
from fedu_jax.core import local_training
from fedu_jax.core.state import ServerState
from fedu_jax.training import round_report
from fedu_jax.training import train
from fedu_jax.training.config import build
from fedu_jax.training.engine import round_program
from tests.helpers import small
from tests.helpers import tiny


def draw(**changes):
  """Makes the tiny config's recipe, and a round's arguments for two clients."""
  config = tiny.get_config()
  config.update_from_flattened_dict(changes)
  recipe = build.recipe(config)
  images = np.random.RandomState(0).randint(0, 256, (72, 8, 8, 3))
  parts = np.split(np.arange(72), [32])
  arrays = fedu_jax.client_arrays(images.astype(np.uint8), parts)
  online = fedu_jax.init_online(recipe.nets, jax.random.key(0),
                                jnp.zeros((2, 8, 8, 3)))
  args = (ServerState(online, jnp.int32(0)),
          fedu_jax.init_clients(online, arrays.num_examples), arrays,
          jax.random.key(1))
  return recipe, args


def test_a_round_consumes_its_state_and_leaves_the_host_alone():
  recipe, (server, clients, arrays, rng) = draw()
  one_round = round_program.compile_round(
      recipe, server, clients, arrays, rng)
  text = one_round.as_text()
  for word in ('callback', 'infeed', 'outfeed', 'send(', 'recv('):
    assert word not in text
  # All but a few numbers that a round writes without having read them.
  networks = lambda: (server.online, clients.online, clients.target)
  with jax.transfer_guard('disallow_explicit'):
    for _ in range(2):
      before = networks()
      server, clients, _ = one_round(server, clients, arrays, rng)
      assert all(x.is_deleted() for x in jax.tree.leaves(before))
  # Each buffer of the state is written where its predecessor was.
  size = sum(x.nbytes for x in jax.tree.leaves(networks()))
  assert one_round.memory_analysis().alias_size_in_bytes >= size
  assert server.round == 2


def test_equal_rounds_are_traced_once(monkeypatch):
  """For equal configs and shapes. Other configs get their own program."""
  traced = []
  make_round = round_program.make_round
  def noting(*args, **more):
    one_round = make_round(*args, **more)
    def noted(*state):
      traced.append(state[0].round.dtype)
      return one_round(*state)
    return noted
  monkeypatch.setattr(round_program, 'make_round', noting)
  round_program._jitted.cache_clear()

  def weights(rate):
    recipe, args = draw(**{'optimizer.learning_rate': rate})
    server, _, _ = round_program.compile_round(recipe, *args)(*args)
    return jax.tree.leaves(server.online.encoder.params)[-1]
  first, second, other = weights(0.1), weights(0.1), weights(0.2)
  assert len(traced) == 2
  np.testing.assert_array_equal(first, second)
  assert (first != other).any()
  monkeypatch.setitem(aggregation.AGGREGATIONS, 'fedavg',
                      aggregation.fedavg_target)
  assert (weights(0.1) != first).any() and len(traced) == 3
  round_program._jitted.cache_clear()  # no other test gets these


def test_rounds_run_under_the_transfer_guard(tmp_path, monkeypatch):
  """Images on the host raise an error, and are not copied in each round."""
  on_host = lambda *args: jax.device_get(client_arrays(*args))
  client_arrays = local_training.client_arrays
  monkeypatch.setattr(local_training, 'client_arrays', on_host)
  with pytest.raises(jax.errors.JaxRuntimeError, match='host-to-device'):
    train.train_and_evaluate(tiny.get_config(), str(tmp_path / 'run'))


def test_one_compilation_serves_all_rounds(tmp_path, monkeypatch):
  """Counted from the second round on, after all code of a run has run once."""
  compilations, counts = [], []

  def listener(event, duration, **_):
    del duration
    if event.endswith('backend_compile_duration'):
      compilations.append(event)

  def add(self, row):
    counts.append(len(compilations))
    return original(self, row)
  original = round_report.RoundReport.add
  monkeypatch.setattr(round_report.RoundReport, 'add', add)
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    with jax.numpy_rank_promotion('allow'):
      train.train_and_evaluate(tiny.get_config(), str(tmp_path / 'run'))
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)
  assert len(counts) == 4
  assert 0 < counts[0] <= counts[1] == counts[2] == counts[3]


def test_absent_clients_are_untouched():
  recipe, (server, clients, arrays, rng) = draw(cohort=1)
  one_round = jax.jit(round_program.make_round(recipe, 2))
  seen = set()
  for _ in range(4):
    server, after, metrics = one_round(server, clients, arrays, rng)
    present, = metrics['cohort'].tolist()
    small.check_equal(small.client(1 - present, after),
                      small.client(1 - present, clients))
    assert after.last_round[present] == server.round - 1
    seen.add(present)
    clients = after
  assert seen == {0, 1}


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('dtype, element', [
    ('float32', 'f32'), ('bfloat16', 'bf16')])
def test_the_same_round_lowers_for_accelerators(platform, dtype, element):
  """With XLA's convolutions, in the config's dtype, and without the host.

  A TPU writes kernels' gradients in float32.
  """
  recipe, args = draw(**{'model.dtype': dtype})
  text = jax.jit(round_program.make_round(recipe, 2)).trace(*args).lower(
      lowering_platforms=(platform,)).as_text()
  convolutions = [line for line in text.splitlines()
                  if 'stablehlo.convolution' in line]
  # Of the tiny net's six layers five differ in shape; each has a kernel's
  # gradient, and all but the first an input's.
  assert len(convolutions) >= 3 * 5 - 1
  of_kernels = set()
  for line in convolutions:
    *factors, result = re.findall(r'x(b?f\d+)>', line)
    assert factors == 2 * [element], line
    if re.search(r'-> tensor<([13])x\1x', line):
      of_kernels.add(result)
    else:
      assert result == element, line
  assert of_kernels == {'f32' if platform == 'tpu' else element}
  assert 'callback' not in text
