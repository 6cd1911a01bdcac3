"""The counts of compiled programs: of one on the CPU, and of short texts."""

import jax
import jax.numpy as jnp
import pytest

from fedu_jax.plan import hlo_text
from fedu_jax.plan import program_counts
from fedu_jax.plan.program_counts import Collective
from fedu_jax.plan.program_counts import Work

# In the style of a GPU's: a loop over clients of a loop over three steps. A
# step takes its row of a table, and trains in a conditional.
GPU = '''\
HloModule jit_round, input_output_alias={ {0}: (0, {}, may-alias), {1}: (1, {}, must-alias) }

%gather_row (p0: f32[100,8], p1: s32[]) -> f32[8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %row = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,8}
  ROOT %flat = f32[8]{0} bitcast(%row)
}

%put_row (q0: f32[100,8], q1: s32[], q2: f32[1,8]) -> f32[100,8] {
  %q0 = f32[100,8]{1,0} parameter(0)
  %q1 = s32[] parameter(1)
  %q2 = f32[1,8]{1,0} parameter(2)
  ROOT %put = f32[100,8]{1,0} dynamic-update-slice(%q0, %q2, %q1, %q1)
}

%train (t: (f32[8], f32[1,8])) -> (f32[8], f32[1,8]) {
  %t = (f32[8]{0}, f32[1,8]{1,0}) parameter(0)
  %t0 = f32[8]{0} get-tuple-element(%t), index=0
  %t1 = f32[1,8]{1,0} get-tuple-element(%t), index=1
  %conv = (f32[1,8]{1,0}, u8[16]{0}) custom-call(%t0, %t1), custom_call_target="__cudnn$convForward"
  %conv0 = f32[1,8]{1,0} get-tuple-element(%conv), index=0
  ROOT %trained = (f32[8]{0}, f32[1,8]{1,0}) tuple(%t0, %conv0)
}

%skip (s: (f32[8], f32[1,8])) -> (f32[8], f32[1,8]) {
  ROOT %s = (f32[8]{0}, f32[1,8]{1,0}) parameter(0)
}

%step (c: (s32[], f32[100,8], f32[8], pred[])) -> (s32[], f32[100,8], f32[8], pred[]) {
  %c = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %table = f32[100,8]{1,0} get-tuple-element(%c), index=1
  %w = f32[8]{0} get-tuple-element(%c), index=2
  %mask = pred[] get-tuple-element(%c), index=3
  %taken = f32[8]{0} fusion(%table, %i), kind=kLoop, calls=%gather_row
  %kept = f32[8]{0} copy(%w)
  %one = f32[1,8]{1,0} bitcast(%kept)
  %both = (f32[8]{0}, f32[1,8]{1,0}) tuple(%taken, %one)
  %done = (f32[8]{0}, /*index=1*/f32[1,8]{1,0}) conditional(%mask, %both, %both), true_computation=%train, false_computation=%skip
  %new = f32[8]{0} get-tuple-element(%done), index=0
  %row.1 = f32[1,8]{1,0} get-tuple-element(%done), index=1
  %stored = f32[100,8]{1,0} fusion(%table, %i, %row.1), kind=kLoop, calls=%put_row
  ROOT %next = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) tuple(%i, %stored, %new, %mask)
}

%more (m: (s32[], f32[100,8], f32[8], pred[])) -> pred[] {
  %m = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) parameter(0)
  %j = s32[] get-tuple-element(%m), index=0
  %three = s32[] constant(3)
  ROOT %lt = pred[] compare(%j, %three), direction=LT
}

%client (k: (s32[], f32[100,8], f32[8], pred[])) -> (s32[], f32[100,8], f32[8], pred[]) {
  %k = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) parameter(0)
  %loop = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) while(%k), condition=%more, body=%step
  %l1 = f32[100,8]{1,0} get-tuple-element(%loop), index=1
  %sum-start = f32[100,8]{1,0} all-reduce-start(%l1), to_apply=%add
  %sum = f32[100,8]{1,0} all-reduce-done(%sum-start)
  %l2 = f32[8]{0} get-tuple-element(%loop), index=2
  %l3 = pred[] get-tuple-element(%loop), index=3
  %l0 = s32[] get-tuple-element(%loop), index=0
  ROOT %last = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) tuple(%l0, %sum, %l2, %l3)
}

ENTRY %main (a: f32[100,8], b: f32[8], d: s32[], e: pred[]) -> (f32[100,8], f32[8]) {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %d = s32[] parameter(2)
  %e = pred[] parameter(3)
  %start = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) tuple(%d, %a, %b, %e)
  %clients = (s32[], f32[100,8]{1,0}, f32[8]{0}, pred[]) while(%start), condition=%more, body=%client, backend_config={"known_trip_count":{"n":"5"}}
  %r1 = f32[100,8]{1,0} get-tuple-element(%clients), index=1
  %r2 = f32[8]{0} get-tuple-element(%clients), index=2
  %told = f32[8]{0} custom-call(%r2), custom_call_target="xla_python_gpu_callback"
  ROOT %out = (f32[100,8]{1,0}, f32[8]{0}) tuple(%r1, %told)
}
'''  # noqa: E501


@pytest.fixture(scope='module')
def gpu():
  return program_counts.count(GPU)


def test_loops_turn_as_often_as_those_around_them_say(gpu):
  clients, step = gpu.loops
  assert (clients.trips, clients.turns, step.trips, step.turns) == (5, 5, 3, 15)
  assert gpu.step == step and step.conditionals == gpu.conditionals == 1
  assert (clients.products, step.products) == (0, 1)


def test_a_step_counts_kernels_and_the_bytes_that_they_touch(gpu):
  """A row is read and written, not its table. The branch that trains counts.
  """
  row, index = 8 * 4, 4
  read, written = row + index + row, row + index + row
  conv = 2 * row + row + 16
  assert gpu.step.work == Work(3, read + written + conv, 1, 2 * row)
  assert gpu.step.carry_copied == 2 * row
  assert gpu.outside == Work(1, 2 * row)
  # What is left: five all-reduces of the table, and the call of the host.
  assert gpu.rest == Work(6, 5 * 2 * 3200 + 2 * row)


def test_collectives_count_as_often_as_they_run(gpu):
  assert gpu.collectives == (Collective('all-reduce', 5, 5 * 3200),)
  assert gpu.collective('all-gather').times == 0


def test_what_reaches_the_host_and_what_is_donated(gpu):
  assert gpu.host_transfers == ('told',)
  assert (gpu.arguments, gpu.donated) == (4, 2)


def test_a_loop_of_unknown_length_counts_as_told():
  text = GPU.replace('constant(3)', 'parameter(0)')
  found = program_counts.count(text, unknown_trips=7)
  assert [(x.trips, x.turns) for x in found.loops] == [(5, 5), (None, 35)]


@pytest.mark.parametrize('shape, size', [
    ('f32[]', 4), ('bf16[4,8]{1,0}', 64), ('pred[3]', 3), ('f8e4m3fn[5]', 5),
    ('(f32[2]{0}, /*index=1*/s32[], token[])', 12),
    # Tiles of a TPU pad the two sides that change fastest.
    ('f32[4,9]{1,0:T(8,128)}', 8 * 128 * 4),
    ('bf16[3,3,8,130]{2,3,1,0:T(8,128)(2,1)}', 3 * 3 * 128 * 136 * 2),
    ('f32[4,9]{1,0:T(8,128)S(1)}', 0)])  # on the chip
def test_bytes_of_a_shape(shape, size):
  assert hlo_text.num_bytes(shape) == size


def test_bytes_anywhere_have_no_padding():
  assert hlo_text.num_bytes('f32[4,9]{1,0:T(8,128)S(1)}', anywhere=True) == 144


def test_what_is_not_a_program_is_refused():
  with pytest.raises(ValueError, match='ENTRY'):
    program_counts.count('module @jit_f {}')


def test_a_program_of_this_machine():
  """Of the CPU's compiler: loops, donation and a call of the host."""
  def step(state, x):
    return jnp.sin(state) @ state + x, None

  def clients(state, xs):
    def client(_, state):
      state, _ = jax.lax.scan(step, state, xs)
      return state
    state = jax.lax.fori_loop(0, 3, client, state)
    jax.debug.callback(lambda x: None, state.sum())
    return state
  state, xs = jnp.zeros((4, 4)), jnp.zeros((5, 4, 4))
  found = program_counts.count(
      jax.jit(clients, donate_argnums=0).lower(state, xs).compile())
  assert [(x.trips, x.turns) for x in found.loops] == [(3, 3), (5, 15)]
  assert found.step == found.loops[1] and found.step.work.kernels
  assert (found.arguments, found.donated) == (2, 1)
  assert len(found.host_transfers) == 1 and not found.conditionals
  kept = program_counts.count(jax.jit(
      lambda x, y: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, y)).lower(
          state, state).compile())
  assert (kept.donated, kept.conditionals, kept.loops) == (0, 1, ())
  assert not kept.host_transfers
