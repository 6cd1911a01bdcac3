"""A method as one record: its learner, its aggregation and its update rule.

A single change needs no record: a bare function is a learner, an aggregation or
a rule with the default contract. By that contract, clients and server send each
other the online network and keep no memory. A record declares what differs.

Shape letters: K clients, M cohort. A tree is any pytree of arrays; its shapes
must not depend on values.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedu_jax.core.state import (
  ClientState,
  Learner,
  Online,
  PyTree,
  ServerState,
)

# (client, cohort) -> what one client sends if `cohort` clients train
Upload = Callable[[ClientState, int], PyTree]
# (server) -> what one client receives
Download = Callable[[ServerState], PyTree]
# (clients [K]) -> the first `server.memory`, before any client has trained
ServerMemory = Callable[[ClientState], PyTree]
# (online) -> the first `client.memory.rule`, from the first online network
RuleMemory = Callable[[Online], PyTree]
# (config) -> None; fields by their dotted names, such as 'learner.queue_size'
Check = Callable[[Mapping[str, Any]], None]


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


def fits_any(config: Mapping[str, Any]) -> None:
  """The default check: it accepts all values of the config."""
  del config


class Aggregation(NamedTuple):
  """An aggregation with its upload and the server's memory.

  `fn` is `(server, clients, ...) -> server`. The clients are stacked [M, ...].
  It may read only the result of `upload` and `num_examples`. A client with
  num_examples 0 must not count. Keyword arguments are fields of
  config.aggregation. `core/aggregation.py` explains the argument `add`.
  """
  fn: Callable[..., ServerState]  # (server, clients [M], ...) -> server
  upload: Upload = upload_online  # (client, cohort) -> tree
  memory: ServerMemory = no_memory  # (clients [K]) -> tree


class UpdateRule(NamedTuple):
  """An update rule with its download and the client's memory.

  `fn` is `(client, server, ...) -> client`, for one client. It may read only
  the result of `download` and the server's `round`. Keyword arguments are
  fields of config.rule.
  """
  fn: Callable[..., ClientState]  # (client, server, ...) -> client
  download: Download = download_online  # (server) -> tree
  memory: RuleMemory = no_memory  # (online) -> tree


class Method(NamedTuple):
  """A learner, with the aggregation and the rule that it needs.

  `learner` builds a `Learner`, which declares the learner's own memory. Its
  keyword arguments are fields of config.learner. An aggregation or a rule is a
  record or a function; None means that the learner goes with any.
  `equal_widths` says that the learner compares the predictor's output with the
  encoder's, so both must have as many features. `check` raises a ValueError,
  with a line for the user, if values of the config do not suit the method.
  """
  learner: Callable[..., Learner]  # (nets, view, make_tx=..., ...) -> Learner
  aggregation: Aggregation | Callable[..., ServerState] | None = None
  rule: UpdateRule | Callable[..., ClientState] | None = None
  labelled: bool = False  # whether it trains on labels; images are `Labelled`
  equal_widths: bool = False  # of the encoder's and the predictor's output
  check: Check = fits_any  # (config) -> None


def aggregation_of(piece: Aggregation | Callable[..., ServerState]
                   ) -> Aggregation:
  """Returns a record as it is, and a function with the default contract."""
  return piece if isinstance(piece, Aggregation) else Aggregation(piece)


def rule_of(piece: UpdateRule | Callable[..., ClientState]) -> UpdateRule:
  """Returns a record as it is, and a function with the default contract."""
  return piece if isinstance(piece, UpdateRule) else UpdateRule(piece)


def method_of(piece: Method | Callable[..., Learner]) -> Method:
  """Returns a record as it is; a function becomes one without restrictions."""
  return piece if isinstance(piece, Method) else Method(piece)
