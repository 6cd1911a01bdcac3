"""Aggregates a cohort in slices, by partial sums.

An aggregation with an argument `add` uses clients only in calls of `add`. So it
runs once for each slice, with an `add` that continues the sums of earlier
slices. Then it runs once for the server, with an `add` that returns the
finished sums.
"""

from collections.abc import Callable, Sequence

from fedu_jax.core import trees
from fedu_jax.core.aggregation import Sum
from fedu_jax.core.state import ClientState, ServerState


def collect(aggregation: Callable[..., ServerState], server: ServerState,
            clients: ClientState, start: Sequence[Sum] = (), *,
            add: Callable[..., Sum] = trees.weighted_sum) -> tuple[Sum, ...]:
  """Computes an aggregation's sums over one slice and the slices before it.

  Args:
    aggregation: an aggregation with an argument `add`.
    server: the server before the round.
    clients: the slice, stacked [M, ...].
    start: the result for the earlier slices; () for the first slice.
    add: the weighted sum, as `trees.weighted_sum`.

  Returns:
    The sums over all slices so far, in the order of the calls of `add`.
  """
  before = list(start)
  found: list[Sum] = []

  def record(rows, weights):
    found.append(add(rows, weights,
                     start=before[len(found)] if before else None))
    return found[-1]
  aggregation(server, clients, add=record)
  return tuple(found)


def conclude(aggregation: Callable[..., ServerState], server: ServerState,
             one: ClientState, sums: Sequence[Sum]) -> ServerState:
  """Aggregates a cohort from the sums of `collect`.

  Args:
    aggregation: the same aggregation.
    server: the server before the round.
    one: one client, stacked [1, ...]; only its shapes are used.
    sums: the sums over the whole cohort.

  Returns:
    The server after the round.
  """
  left = iter(sums)
  return aggregation(server, one, add=lambda rows, weights: next(left))
