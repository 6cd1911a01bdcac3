"""Bytes that a method sends between clients and the server.

What is sent is declared: `method.Aggregation.upload` by a client, and
`method.UpdateRule.download` by the server. An update rule that takes or keeps a
predictor decides on the client, so it is sent in any case.

The scalars that go with any message are not counted: the client's number of
images, and the number of the round. What a client remembers and no one reads
(a target, MoCo's queue, a divergence) is not sent.
"""

from typing import NamedTuple

import jax

from fedu_jax.core.method import Aggregation, UpdateRule
from fedu_jax.core.state import ClientState, ServerState
from fedu_jax.core import trees


class Sent(NamedTuple):
  """Bytes that one client of a round sends and receives."""
  up: int
  down: int


def of(aggregation: Aggregation, rule: UpdateRule, server: ServerState,
       client: ClientState, cohort: int) -> Sent:
  """Counts what a client sends and receives in a round, by shapes alone.

  Args:
    aggregation: the method's.
    rule: the method's.
    server: the server, or its shapes.
    client: one client, or its shapes.
    cohort: how many clients train in a round.
  """
  return Sent(
      trees.num_bytes(jax.eval_shape(
          lambda x: aggregation.upload(x, cohort), client)),
      trees.num_bytes(jax.eval_shape(rule.download, server)))
