"""Counts the bytes that clients and server send.

`method.Aggregation.upload` declares what a client sends, and
`method.UpdateRule.download` what the server sends. DAPU runs on the client, so
the predictor is always sent, even if the client then keeps its own.

Two scalars are not counted: a client's number of images, which goes up, and the
number of the round, which comes down. State that only the client reads is not
sent: its target, MoCo's queue, its divergence.
"""

from typing import NamedTuple

import jax

from fedu_jax.core import trees
from fedu_jax.core.method import Aggregation, UpdateRule
from fedu_jax.core.state import ClientState, ServerState


class Sent(NamedTuple):
  """The bytes that one client sends (up) and receives (down) in a round."""
  up: int
  down: int


def of(aggregation: Aggregation, rule: UpdateRule, server: ServerState,
       client: ClientState, cohort: int) -> Sent:
  """Counts what a client sends and receives in a round, from shapes alone.

  Args:
    aggregation: the method's aggregation.
    rule: the method's update rule.
    server: the server, or its shapes.
    client: one client, or its shapes.
    cohort: the number of clients that train in a round.
  """
  return Sent(
      trees.num_bytes(jax.eval_shape(
          lambda x: aggregation.upload(x, cohort), client)),
      trees.num_bytes(jax.eval_shape(rule.download, server)))
