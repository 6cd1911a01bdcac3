"""Who takes part in a round, and how far each gets: pure functions of a key.

A sampling is `(rng, num_examples, *, size) -> ids`, chosen by name. What a
client does depends on the round's key and its id alone, never on who else is
there. Draws are of 32 bits, so that they are the same with jax_enable_x64.
"""

import functools

import jax
import jax.numpy as jnp

from fedu_jax.core.state import Array, Batches


def uniform(rng: Array, num_examples: Array, *, size: int) -> Array:
  """Draws a cohort, each set of clients as likely as any other.

  Args:
    rng: a key.
    num_examples: [K], the clients' data sizes; not read.
    size: M.

  Returns:
    Their ids, [M] i32, ascending, none twice.
  """
  # The largest of random numbers: a shuffle would sort all clients, twice. Of
  # two equal ones the first is drawn, which of 2^32 values hardly happens.
  bits = jax.random.bits(rng, num_examples.shape, jnp.uint32)
  _, ids = jax.lax.top_k(bits, size)
  return jnp.sort(ids.astype(jnp.int32))


def by_size(rng: Array, num_examples: Array, *, size: int) -> Array:
  """Draws a cohort one after the other, each in proportion to its data.

  The largest of log size + Gumbel noise are such a draw without replacement
  (Yellott 1977). Aggregations weigh by data size besides. Arguments and result
  as in `uniform`; a client without data is drawn only for want of others.
  """
  noise = jax.random.gumbel(rng, num_examples.shape, jnp.float32)
  _, ids = jax.lax.top_k(jnp.log(num_examples) + noise, size)
  return jnp.sort(ids.astype(jnp.int32))


def arrives(rng: Array, *, dropout: float) -> Array:
  """Draws whether a client's upload reaches the server, [] bool."""
  return jax.random.uniform(rng, dtype=jnp.float32) >= dropout


def shorten(batches: Batches, rng: Array, *, stragglers: float,
            least: float) -> Batches:
  """Lets a client stop early with probability `stragglers`.

  Args:
    batches: its work order.
    rng: a key.
    stragglers: the probability.
    least: the smallest share of its steps that a straggler does; the share is
      drawn evenly from there to 1, and rounded up to whole steps.
  """
  late, share = jax.random.split(rng)
  draw = functools.partial(jax.random.uniform, dtype=jnp.float32)
  share = jnp.where(draw(late) < stragglers, draw(share, minval=least), 1)
  steps = jnp.ceil(share * batches.mask.sum(dtype=jnp.int32))
  number = jnp.cumsum(batches.mask)  # of a step, among those not masked
  return batches._replace(mask=batches.mask & (number <= steps))
