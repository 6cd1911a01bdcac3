"""What a method sends between clients and the server, and its bytes.

An aggregation declares what a client sends to it: its attribute `upload` is
`(client, cohort) -> tree`, for one client of a cohort of so many. A rule
declares what a client receives: its attribute `download` is `(server) -> tree`.
A function that declares nothing moves the online network. An update rule that
takes or keeps a predictor decides on the client, so it is sent in any case.

The scalars that go with any message are not counted: the client's number of
images, and the number of the round. What a client remembers and no one reads
(a target, MoCo's queue, a divergence) is not sent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax

from fedu_jax.core.state import ClientState, PyTree, ServerState
from fedu_jax.core import trees

_Function = TypeVar('_Function', bound=Callable[..., Any])


class Sent(NamedTuple):
  """Bytes that one client of a round sends and receives."""
  up: int
  down: int


def declares(**contracts: Any) -> Callable[[_Function], _Function]:
  """Decorates a function with what it declares: `upload`, `download`, `memory`.

  Args:
    **contracts: become attributes of the function.
  """
  def decorate(function: _Function) -> _Function:
    for name, value in contracts.items():
      setattr(function, name, value)
    return function
  return decorate


def online(client: ClientState, cohort: int) -> PyTree:
  """The upload of an aggregation that declares none: the online network."""
  del cohort
  return client.online


def of(aggregation: Callable[..., Any], rule: Callable[..., Any],
       server: ServerState, client: ClientState, cohort: int) -> Sent:
  """Counts what a client sends and receives in a round, by shapes alone.

  Args:
    aggregation: of the method.
    rule: of the method.
    server: the server, or its shapes.
    client: one client, or its shapes.
    cohort: how many clients train in a round.
  """
  upload = getattr(aggregation, 'upload', online)
  download = getattr(rule, 'download', lambda server: server.online)
  return Sent(
      trees.num_bytes(jax.eval_shape(lambda x: upload(x, cohort), client)),
      trees.num_bytes(jax.eval_shape(download, server)))
