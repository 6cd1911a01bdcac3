"""A method as one record: its learner, its aggregation and its update rule.

A single change needs no record: a bare function is a learner, an aggregation or
a rule with the default contract. It moves the online network, and neither the
server nor a client remembers more than its state. A record says what differs.

Shape letters: K clients, M cohort. A tree is any pytree of arrays; its shapes
must not depend on values.
"""

from collections.abc import Callable
from typing import NamedTuple

from fedu_jax.core.state import (
    ClientState, Learner, Online, PyTree, ServerState)


def upload_online(client: ClientState, cohort: int) -> PyTree:
  """The default upload: the online network of a client."""
  del cohort
  return client.online


def download_online(server: ServerState) -> PyTree:
  """The default download: the server's online network."""
  return server.online


def no_memory(*_: PyTree) -> PyTree:
  """The default memory: nothing."""
  return ()


class Aggregation(NamedTuple):
  """What the server makes of the uploads, what it reads, what it remembers.

  Attributes:
    fn: (server, clients, *, ...) -> server. The clients are stacked [M, ...]. A
      client with `num_examples` 0 must not count. Keyword arguments are fields
      of config.aggregation. See `core/aggregation.py` for `add`, by which it
      runs on many devices without gathering.
    upload: (client, cohort) -> tree: what one client sends if `cohort` clients
      train in a round. `fn` reads no more of the clients than this and
      `num_examples`.
    memory: (clients [K]) -> tree: the first `server.memory`, from clients that
      have not trained yet.
  """
  fn: Callable[..., ServerState]
  upload: Callable[[ClientState, int], PyTree] = upload_online
  memory: Callable[[ClientState], PyTree] = no_memory


class UpdateRule(NamedTuple):
  """What a client makes of the download, what it receives and remembers.

  Attributes:
    fn: (client, server, *, ...) -> client, for one client. Keyword arguments
      are fields of config.rule.
    download: (server) -> tree: what one client receives. `fn` reads no more of
      the server than this and `round`.
    memory: (online) -> tree: one client's first `memory.rule`, from the first
      online network.
  """
  fn: Callable[..., ClientState]
  download: Callable[[ServerState], PyTree] = download_online
  memory: Callable[[Online], PyTree] = no_memory


class Method(NamedTuple):
  """A learner, with the aggregation and the rule that it needs.

  Attributes:
    learner: (nets, view, *, make_tx, ...) -> Learner, which has the learner's
      own memory. Keyword arguments are fields of config.learner.
    aggregation: the method's own, as a record or a function; None if it goes
      with any.
    rule: the method's own, as a record or a function; None if it goes with any.
    labelled: whether the learner trains on labels. Its images are then
      `Labelled`.
  """
  learner: Callable[..., Learner]
  aggregation: Aggregation | Callable[..., ServerState] | None = None
  rule: UpdateRule | Callable[..., ClientState] | None = None
  labelled: bool = False


def aggregation_of(piece: Aggregation | Callable[..., ServerState]
                   ) -> Aggregation:
  """Returns a record as it is, and a function with the default contract."""
  return piece if isinstance(piece, Aggregation) else Aggregation(piece)


def rule_of(piece: UpdateRule | Callable[..., ClientState]) -> UpdateRule:
  """Returns a record as it is, and a function with the default contract."""
  return piece if isinstance(piece, UpdateRule) else UpdateRule(piece)


def method_of(piece: Method | Callable[..., Learner]) -> Method:
  """Returns a record as it is; a function becomes one that goes with any."""
  return piece if isinstance(piece, Method) else Method(piece)
