"""Aggregates a cohort whose clients are never all in one place.

An aggregation that has an argument `add` sees its clients only through the sums
it asks for. So it can be run on each part of a cohort with an `add` that goes
on from the sums of the parts before, and once more, with an `add` that hands
out the finished sums, for the server.
"""

from collections.abc import Callable, Sequence

from fedu_jax.core import trees
from fedu_jax.core.aggregation import Sum
from fedu_jax.core.state import ClientState, ServerState


def collect(aggregation: Callable[..., ServerState], server: ServerState,
            clients: ClientState, start: Sequence[Sum] = (), *,
            add: Callable[..., Sum] = trees.weighted_sum) -> tuple[Sum, ...]:
  """Takes the sums that an aggregation asks for over a part of a cohort.

  Args:
    aggregation: one that has an argument `add`.
    server: the server before the round.
    clients: the part, stacked [M, ...].
    start: what this returned for the parts before; () for the first part.
    add: as `trees.weighted_sum`.

  Returns:
    The sums over all parts so far, in the order in which they are asked for.
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
  """Aggregates a cohort of which `collect` has taken the sums.

  Args:
    aggregation: the same.
    server: the server before the round.
    one: one client, stacked [1, ...], for its shapes alone.
    sums: over the whole cohort.
  """
  left = iter(sums)
  return aggregation(server, one, add=lambda rows, weights: next(left))
