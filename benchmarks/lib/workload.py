"""The work to time: training steps of configs/cifar10.py on random images."""

import argparse
from collections.abc import Callable, Iterator
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from benchmarks.lib import timing
from configs import cifar10
from fedu_jax.core import local_training
from fedu_jax.core import rounds
from fedu_jax.core.state import Array, Learner, Online
from fedu_jax.learners.byol import StepState
from fedu_jax.models import networks
from fedu_jax.training.config import binding
from fedu_jax.training.config import build
from fedu_jax.training.config import checks

# The largest error, after a few steps, between two orders of summation.
BOUND = {'float32': 0.02, 'bfloat16': 0.3}


class Work(NamedTuple):
  """A config with its networks, SSL method and first weights."""
  config: ml_collections.ConfigDict
  nets: networks.Nets
  learner: Learner
  online: Online


def make(args: argparse.Namespace, *, first_target: str = 'copy',
         convolution: str = 'fast', **learner: Any) -> Work:
  """Makes configs/cifar10.py with the flags' network.

  Args:
    args: the flags.
    first_target: as in `byol_step`.
    convolution: as in `networks.resnet18`.
    **learner: keyword arguments of the learner's step to replace.
  """
  config = cifar10.get_config()
  config.batch_size = args.batch
  for name in ('width', 'hidden', 'features', 'dtype'):
    config.model[name] = getattr(args, name)
  config.model.name = args.model
  config.model.convolution = convolution
  config.learner.first_target = first_target
  checks.check(config)
  nets = binding.bind(config, 'model')()
  made = build.learner(config, nets)
  if learner:
    made = made._replace(step=functools.partial(made.step, **learner))
  image = jnp.zeros((2, args.size, args.size, 3))
  online = networks.init_online(nets, jax.random.key(0), image)
  return Work(config, nets, made, online)


def start(work: Work, online: Online | None = None) -> StepState:
  """Returns a client's state before its first step."""
  clients = local_training.init_clients(online or work.online, jnp.ones(1))
  client = jax.tree.map(lambda x: x[0], clients)
  return work.learner.init(client, jnp.int32(0))


def steps(work: Work, state: StepState, images: Array,
          rngs: Array) -> tuple[StepState, Array]:
  """Scans over steps: images [S, B, H, W, 3] u8, rngs [S] -> losses [S]."""
  state, metrics = jax.lax.scan(
      lambda state, x: work.learner.step(state, *x), state, (images, rngs))
  return state, metrics['loss']


def unlooped(work: Work) -> Callable[..., Any]:
  """Returns a function that runs the same steps, one call each from Python."""
  step = jax.jit(work.learner.step, donate_argnums=0)

  def run(state, images, rngs):
    losses = []
    for x, rng in zip(images, rngs, strict=True):
      state, metrics = step(state, x, rng)
      losses.append(metrics['loss'])
    return state, losses
  return run


def clients(work: Work, execution: str) -> Callable[..., Any]:
  """Returns the scan for stacked clients, by one of the executions."""
  return rounds.map_clients(functools.partial(steps, work),
                            execution=execution)


def compiled(fn: Callable[..., Any], *args: Any) -> jax.stages.Compiled:
  """Compiles a function and donates its first argument, the state."""
  return jax.jit(fn, donate_argnums=0).lower(*args).compile()


def batches(args: argparse.Namespace, seed: int = 0) -> tuple[Array, Array]:
  """Draws the images [S, B, H, W, 3] u8 and keys [S] of a run."""
  images = timing.random_images(args.steps * args.batch, args.size, seed)
  return (images.reshape(args.steps, args.batch, *images.shape[1:]),
          jax.random.split(jax.random.key(seed + 1), args.steps))


def repeated(fn: Callable[..., Any], state: StepState,
             *args: Any) -> Callable[[], Any]:
  """Returns a run that continues from the state of its last call."""
  box = [jax.tree.map(jnp.array, state)]

  def run():
    box[0], losses = fn(box[0], *args)
    return losses
  return run


def operations(work: Work, args: argparse.Namespace) -> float:
  """Returns the floating-point operations of a step's products for one image.

  It counts direct convolutions and dense layers of two views: one pass for the
  target, and three for the online network, backward passes included. Winograd's
  method needs fewer, so the fraction of the peak can exceed one on CPU.
  """
  image = jnp.zeros((1, args.size, args.size, 3))
  encoder, predictor = work.online
  features = jax.eval_shape(lambda: networks.forward(
      work.nets.encoder, encoder, image)[0])
  encode = sum(_products(jax.make_jaxpr(lambda: networks.forward(
      work.nets.encoder, encoder, image)[0])().jaxpr))
  predict = sum(_products(jax.make_jaxpr(lambda z: networks.forward(
      work.nets.predictor, predictor, z)[0])(features).jaxpr))
  return 2 * 2 * (3 * (encode + predict) + encode)


def _products(jaxpr: Any) -> Iterator[int]:
  """Yields the multiplications of each convolution and matrix product."""
  for eqn in jaxpr.eqns:
    name = eqn.primitive.name
    if name == 'dot_general':
      yield eqn.invars[0].aval.size * eqn.invars[1].aval.shape[-1]
    elif name.startswith('custom_vjp_call') and eqn.invars[-1].aval.ndim == 4:
      kernel = eqn.invars[-1].aval
      yield eqn.outvars[0].aval.size * kernel.size // kernel.shape[-1]
    # A dense layer with narrow factors has its own gradient.
    elif inner := eqn.params.get('jaxpr', eqn.params.get('call_jaxpr')):
      yield from _products(getattr(inner, 'jaxpr', inner))
