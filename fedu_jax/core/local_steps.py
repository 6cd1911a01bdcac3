"""The loop over a client's steps of one round."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedu_jax.core import trees
from fedu_jax.core.state import Array, Metrics, PyTree

# (state, number of the step, index [B]) -> (state, metrics)
Step = Callable[[PyTree, Array, Array], tuple[PyTree, Metrics]]


def run(step: Step, state: PyTree, index: Array, mask: Array | None, *,
        masked: bool) -> tuple[PyTree, Metrics, Array]:
  """Does a client's steps, one after the other.

  Args:
    step: one step. Compile it with `jax.jit`, so that its uses share one trace.
    state: the state before the first step.
    index: [S, B] i32, the rows of each batch.
    mask: [S] bool, the steps that are done; None for all of them.
    masked: how a step is skipped. False: the loop ends after the client's own
      steps. On an accelerator the host then reads whether to go on. True: a
      skipped step is computed, and its result is dropped. Clients that run at
      once, and devices that share batches, then do the same steps. Without a
      mask this has no effect.

  Returns:
    The state after the last step; the metrics, each averaged over the steps
    that were done; and their number [] i32.
  """
  if mask is None:
    steps = jnp.int32(len(index))
    state, metrics = _all_steps(step, state, jnp.arange(len(index)), index)
  else:
    steps = mask.sum(dtype=jnp.int32)
    state, metrics = (_masked_steps if masked else _own_steps)(
        step, state, index, mask)
  return state, means(metrics, steps), steps


def go_on(step: Step, state: PyTree, metrics: Metrics, numbers: Array,
          index: Array, count: Array | None) -> tuple[PyTree, Metrics]:
  """Does some of a client's steps, which it does not do all at once.

  Args:
    step: as for `run`.
    state: the state after the steps before these.
    metrics: those of the steps before, [S, ...] each; zeros elsewhere.
    numbers: [n] i32, the numbers of these steps among all S.
    index: [n, B] i32, the rows of each batch.
    count: [] i32, only the first `count` of these steps are done; None for all.

  Returns:
    The state after these steps, and the metrics with theirs.
  """
  if count is None:
    state, new = _all_steps(step, state, numbers, index)
    return state, trees.put(metrics, numbers, new)

  def own(i, carry):
    state, metrics = carry
    state, new = step(state, numbers[i], index[i])
    return state, trees.put(metrics, numbers[i], new)
  return jax.lax.fori_loop(0, count, own, (state, metrics))


def no_metrics(step: Step, state: PyTree, batch_size: int,
               steps: int) -> Metrics:
  """Returns the metrics before the first of S steps: zeros, [S, ...] each."""
  _, one = jax.eval_shape(step, state, jnp.int32(0), jax.ShapeDtypeStruct(
      (batch_size,), jnp.int32))
  return jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), one)


def means(metrics: Metrics, steps: Array) -> Metrics:
  """Averages metrics [S, ...] over the `steps` steps that were done."""
  return {name: _mean(x, steps) for name, x in metrics.items()}


def _all_steps(step: Step, state: PyTree, numbers: Array,
               index: Array) -> tuple[PyTree, Metrics]:
  """Does each step; returns the last state and the metrics, [n, ...] each."""
  return jax.lax.scan(lambda state, work: step(state, *work), state,
                      (numbers, index))


def _masked_steps(step: Step, state: PyTree, index: Array,
                  mask: Array) -> tuple[PyTree, Metrics]:
  """Does all S steps, and drops the results of those that are skipped."""
  def masked(state, work):
    *args, done = work
    new, metrics = step(state, *args)
    return trees.where(done, new, state), jax.tree.map(
        lambda x: jnp.where(done, x, jnp.zeros((), x.dtype)), metrics)
  return jax.lax.scan(masked, state, (jnp.arange(len(mask)), index, mask))


def _own_steps(step: Step, state: PyTree, index: Array,
               mask: Array) -> tuple[PyTree, Metrics]:
  """Does only the steps of the mask. Metrics of the other steps are zeros.

  A conditional around each step would do the same, but XLA copies the whole
  state next to a conditional, and the host reads the mask before each step.
  """
  numbers = jnp.argsort(~mask, stable=True)  # of the steps that are done, first
  metrics = no_metrics(step, state, index.shape[1], len(mask))
  return go_on(step, state, metrics, numbers, index[numbers],
               mask.sum(dtype=jnp.int32))


def _mean(x: Array, steps: Array) -> Array:
  """The mean of x [S, ...] over the steps that were done."""
  if not jnp.issubdtype(x.dtype, jnp.inexact):  # integers and booleans
    x = x.astype(jnp.float32)
  return x.sum(0) / jnp.maximum(steps, 1).astype(x.dtype)
