"""Trains a part of an encoder: the first stages of its backbone stay frozen.

A state of a client or a server is always whole. The functions here take the
frozen part out on the way into a learner, an aggregation, a rule or a
divergence, and put it back on the way out, with the same bits. So these need
not know of it: the frozen part has no gradient, no decay, no moving average, no
weighted mean and no upload. Its BatchNorm normalises by the stored statistics.

A stage is named as in torchvision and timm: 'stem', 'layer1', 'blocks.0'. It
stands for all parts of the backbone up to and with it; '' for none.
"""

from collections.abc import Callable, Mapping
import functools
import re
from typing import Any, NamedTuple

from flax import linen as nn

from fedu_jax.core.method import Aggregation, UpdateRule
from fedu_jax.core.state import (
  Array,
  ClientState,
  Learner,
  Online,
  PyTree,
  ServerState,
  Variables,
)
from fedu_jax.models import networks

_STEM = ('conv1', 'bn1', 'patch_embed', 'cls_token', 'pos_embed')
_NUMBERED = r'(?:layer|blocks_)(\d+)'
_BACKBONE = 'backbone'  # the module of `networks.Encoder`
_KEPT = '_frozen'  # where a learner's statistics hold the frozen part


def check(nets: networks.Nets, stage: str) -> None:
  """Checks that a backbone has a stage, and trained parts after it.

  Args:
    nets: the networks.
    stage: the last frozen stage.

  Raises:
    ValueError: it does not; the message has the choices.
  """
  backbone = getattr(nets.encoder, _BACKBONE, None)
  if (blocks := getattr(backbone, 'depth', 0)):
    choices = ['stem', *(f'blocks.{i}' for i in range(blocks - 1))]
  elif (stages := getattr(backbone, 'stages', ())):
    choices = ['stem', *(f'layer{i}' for i in range(1, len(stages)))]
  else:
    raise ValueError(f'no part of a {type(nets.encoder).__name__} has the name '
                     'of a stage')
  if stage not in choices:
    raise ValueError(f'this backbone can be frozen up to {", ".join(choices)}')


def is_frozen(stage: str, part: str) -> bool:
  """Whether a part of a backbone is frozen.

  Args:
    stage: the last frozen stage.
    part: the name of a module or an array of the backbone, such as 'conv1' or
      'layer1_0'.
  """
  if part in _STEM:
    return True
  last, own = re.search(r'\d+', stage), re.match(_NUMBERED, part)
  return bool(last and own and int(own[1]) <= int(last[0]))


def split(encoder: Variables, stage: str) -> tuple[Variables, Variables]:
  """Splits an encoder into what is trained and what is frozen.

  Args:
    encoder: the encoder's parameters and statistics, with any leading axes.
    stage: the last frozen stage.

  Returns:
    The encoder without its frozen part, and that part.
  """
  found = [_split(tree, stage) for tree in encoder]
  return Variables(*(x[0] for x in found)), Variables(*(x[1] for x in found))


def _split(tree: Mapping[str, Any], stage: str) -> tuple[PyTree, PyTree]:
  if _BACKBONE not in tree:
    return tree, {}
  own = tree[_BACKBONE]
  still = {name: x for name, x in own.items() if is_frozen(stage, name)}
  return {**tree, _BACKBONE: {name: x for name, x in own.items()
                              if name not in still}}, still


def join(moving: Variables, still: Variables) -> Variables:
  """Joins the parts of `split` again."""
  return Variables(*(
      {**tree, _BACKBONE: {**tree.get(_BACKBONE, {}), **part}} if part else tree
      for tree, part in zip(moving, still)))


class _Encoder(NamedTuple):
  """An encoder whose statistics have the frozen part among them.

  It is applied as a module is.
  """
  module: nn.Module
  stage: str

  def apply(self, variables: Mapping[str, Any], *args: Any,
            mutable: Any = False, **more: Any) -> Any:
    stats = dict(variables['batch_stats'])
    still = stats.pop(_KEPT)
    whole = join(Variables(variables['params'], stats), still)
    with nn.intercept_methods(self._as_stored):
      result = self.module.apply({**variables, **whole._asdict()}, *args,
                                 mutable=mutable, **more)
    if not mutable:
      return result
    y, changed = result
    moved, _ = _split(changed.get('batch_stats', {}), self.stage)
    return y, {'batch_stats': {**moved, _KEPT: still}}

  def _as_stored(self, call, args, kwargs, context):
    """Calls frozen modules in evaluation mode."""
    place = context.module.path
    if 'train' in kwargs and place[:1] == (_BACKBONE,) and len(place) > 1 and (
        is_frozen(self.stage, place[1])):
      kwargs = kwargs | {'train': False}
    return call(*args, **kwargs)


def learner(make: Callable[[networks.Nets], Learner], nets: networks.Nets,
            stage: str) -> Learner:
  """Builds a learner that trains what is not frozen.

  Args:
    make: networks -> the learner.
    nets: the networks.
    stage: the last frozen stage.
  """
  if not stage:
    return make(nets)
  encoder: Any = _Encoder(nets.encoder, stage)
  own = make(nets._replace(encoder=encoder))

  def entered(encoder: Variables) -> Variables:
    moving, still = split(encoder, stage)
    return moving._replace(batch_stats={**moving.batch_stats, _KEPT: still})

  def left(encoder: Variables, before: Variables) -> Variables:
    stats = {name: x for name, x in encoder.batch_stats.items()
             if name != _KEPT}
    return join(encoder._replace(batch_stats=stats), split(before, stage)[1])

  def init(client: ClientState, round_: Array) -> PyTree:
    return own.init(_of_encoders(entered, client), round_)

  def final(client: ClientState, state: PyTree) -> ClientState:
    trained = own.final(_of_encoders(entered, client), state)
    return _of_encoders(left, trained, client)

  def memory(online: Online, rng: Array, image: Array) -> PyTree:
    return own.memory(
        online._replace(encoder=entered(online.encoder)), rng, image)

  return Learner(init, own.step, final, memory)


def _of_encoders(fn: Callable[..., Variables],
                 *clients: ClientState) -> ClientState:
  """Applies a function to the online and the target encoders of clients."""
  first = clients[0]
  return first._replace(
      online=first.online._replace(
          encoder=fn(*(x.online.encoder for x in clients))),
      target=fn(*(x.target for x in clients)))


def _moving(stage: str, client: ClientState) -> ClientState:
  """A client, or clients, without the frozen part."""
  return _of_encoders(lambda x: split(x, stage)[0], client)


def _server(stage: str, server: ServerState) -> ServerState:
  """A server without the frozen part."""
  return server._replace(online=server.online._replace(
      encoder=split(server.online.encoder, stage)[0]))


def aggregation(own: Aggregation, stage: str) -> Aggregation:
  """Makes an aggregation leave the frozen part to the server.

  Args:
    own: the aggregation.
    stage: the last frozen stage.
  """
  if not stage:
    return own

  @functools.wraps(own.fn)  # its argument `add`, if any, stays visible
  def fn(server: ServerState, clients: ClientState, **more: Any) -> ServerState:
    made = own.fn(_server(stage, server), _moving(stage, clients), **more)
    still = split(server.online.encoder, stage)[1]
    return made._replace(online=made.online._replace(
        encoder=join(made.online.encoder, still)))

  return Aggregation(
      fn, lambda client, cohort: own.upload(_moving(stage, client), cohort),
      lambda clients: own.memory(_moving(stage, clients)))


def rule(own: UpdateRule, stage: str) -> UpdateRule:
  """Makes an update rule leave the frozen part to the client.

  Args:
    own: the update rule.
    stage: the last frozen stage.
  """
  if not stage:
    return own

  def fn(client: ClientState, server: ServerState) -> ClientState:
    made = own.fn(_moving(stage, client), _server(stage, server))
    return _of_encoders(lambda x, before: join(x, split(before, stage)[1]),
                        made, client)

  return UpdateRule(
      fn, lambda server: own.download(_server(stage, server)),
      lambda online: own.memory(online._replace(
          encoder=split(online.encoder, stage)[0])))


def divergence(own: Callable[[PyTree, PyTree], Array],
               stage: str) -> Callable[[PyTree, PyTree], Array]:
  """Makes a divergence measure what can move.

  Args:
    own: (encoder params, encoder params) -> [].
    stage: the last frozen stage.
  """
  if not stage:
    return own
  return lambda a, b: own(_split(a, stage)[0], _split(b, stage)[0])
