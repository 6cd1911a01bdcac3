"""A score's program is checked against the memory before it runs."""

import types

import jax
import jax.numpy as jnp
import pytest

from fedu_jax.evaluation import program_memory
from fedu_jax.runtime import host_memory
from fedu_jax.runtime.errors import BadInput

SIDE = 512  # so the result takes 1 MiB


@jax.jit
def outer(x):
  return x[:, None] * x[None]


def test_a_program_that_fits_is_compiled_once():
  compiled = []

  def listen(event, _, **more):
    if event.endswith('backend_compile_duration'):
      compiled.append(more)
  x = jnp.arange(SIDE, dtype=jnp.float32)
  jax.block_until_ready(x)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    found = [program_memory.run(outer, 'it', x) for _ in range(2)]
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert len(compiled) == 1
  assert found[1][3, 5] == 15


def test_what_the_host_has_no_room_for_is_refused(monkeypatch):
  x = jnp.ones(SIDE)
  monkeypatch.setattr(host_memory, 'free_bytes', lambda *_: 4 * SIDE**2)
  program_memory.run(outer, 'it', x)
  monkeypatch.setattr(host_memory, 'free_bytes', lambda *_: 4 * SIDE**2 - 1)
  with pytest.raises(BadInput, match='it takes 0.001 GB, more .* stays; score'):
    program_memory.run(outer, 'it', x)


def test_a_device_that_knows_its_memory_is_asked(monkeypatch):
  stats = {'bytes_limit': 5 * 4 * SIDE**2, 'bytes_in_use': 4 * 4 * SIDE**2}
  device = types.SimpleNamespace(memory_stats=lambda: stats, device_kind='GPU')
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  x = jnp.ones(SIDE)
  program_memory.run(outer, 'it', x)
  stats['bytes_in_use'] += 1
  with pytest.raises(BadInput, match='it takes 0.001 GB of a GPU, of which'):
    program_memory.run(outer, 'it', x)


def test_a_traced_program_is_not_checked(monkeypatch):
  monkeypatch.setattr(host_memory, 'free_bytes', lambda *_: 0)
  found = jax.eval_shape(lambda x: program_memory.run(outer, 'it', x),
                         jnp.ones(SIDE))
  assert found.shape == (SIDE, SIDE)
