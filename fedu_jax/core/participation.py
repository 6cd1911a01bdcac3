"""Which clients train in a round, and which of them drop out or stop early.

All draws are pure functions of a key. A sampling, chosen by name in the config,
is `(rng, num_examples, *, size) -> ids`. Whether a client drops out or stops
early depends only on the round's key and the client's id. Draws use 32 bits, so
that they are the same with jax_enable_x64.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array, Batches


def uniform(rng: Array, num_examples: Array, *, size: int) -> Array:
  """Draws a cohort uniformly, without replacement.

  Args:
    rng: a key.
    num_examples: [K], the clients' data sizes; not used.
    size: M, the number of clients to draw.

  Returns:
    The ids of the clients, [M] i32, ascending and distinct.
  """
  # The M largest of K random numbers: a shuffle would sort all clients twice.
  # Of two equal numbers the first wins; with 2^32 values this is rare.
  bits = jax.random.bits(rng, num_examples.shape, jnp.uint32)
  _, ids = jax.lax.top_k(bits, size)
  return jnp.sort(ids.astype(jnp.int32))


def by_size(rng: Array, num_examples: Array, *, size: int) -> Array:
  """Draws a cohort without replacement, in proportion to data sizes.

  The M largest values of log size + Gumbel noise are such a draw (Yellott
  1977). The aggregation weighs clients by data size in addition. A client
  without data is drawn only if there are too few others. Arguments and result
  are as in `uniform`.
  """
  noise = jax.random.gumbel(rng, num_examples.shape, jnp.float32)
  _, ids = jax.lax.top_k(jnp.log(num_examples) + noise, size)
  return jnp.sort(ids.astype(jnp.int32))


def arrives(rng: Array, *, dropout: float) -> Array:
  """Draws whether a client's upload reaches the server, [] bool."""
  return jax.random.uniform(rng, dtype=jnp.float32) >= dropout


def shorten(batches: Batches, rng: Array, *, stragglers: float,
            least: float) -> Batches:
  """Makes a client stop early with probability `stragglers`.

  Args:
    batches: the client's batches of the round.
    rng: a key.
    stragglers: the probability that the client is a straggler.
    least: the smallest share of its steps that a straggler does. The share is
      drawn uniformly from [least, 1] and rounded up to whole steps.

  Returns:
    The batches; the steps that a straggler does not reach are masked.
  """
  late, share = jax.random.split(rng)
  draw = functools.partial(jax.random.uniform, dtype=jnp.float32)
  share = jnp.where(draw(late) < stragglers, draw(share, minval=least), 1)
  mask = batches.mask
  if mask is None:
    mask = jnp.ones(len(batches.index), bool)
  steps = jnp.ceil(share * mask.sum(dtype=jnp.int32))
  number = jnp.cumsum(mask)  # [S], counts the steps that are done
  return batches._replace(mask=mask & (number <= steps))


# config.sampling.name -> a function.
SAMPLINGS: dict[str, Callable[..., Array]] = {
    'uniform': uniform,
    'by_size': by_size,
}
