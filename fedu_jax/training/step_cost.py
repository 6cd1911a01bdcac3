"""Counts the operations of a training step, and measures their rate."""

from collections.abc import Callable, Sequence
import functools
import math
import time
from typing import Any

import jax
from jax.extend.core import Literal
import jax.numpy as jnp
import numpy as np

from fedu_jax.core.state import ClientState, Labelled, PyTree
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.models import networks
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.engine import placement
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.recipe import Recipe


def operations(jaxpr: Any, used: Sequence[bool] | None = None) -> float:
  """Counts the floating-point operations of a traced function's products.

  A product of numbers counts as two operations. A convolution counts as a
  direct one. A loop counts as often as it runs. A conditional counts by its
  last branch: the code of accelerators, and a step that is not skipped. Other
  operations do not count, nor do products that no result needs, because the
  compiler removes those.

  Args:
    jaxpr: a result of `jax.make_jaxpr`.
    used: for each result, whether it is needed; None for all.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  total = 0.0
  live = {x for i, x in enumerate(jaxpr.outvars)
          if not isinstance(x, Literal) and (used is None or used[i])}
  for eqn in reversed(jaxpr.eqns):
    wanted = [x in live for x in eqn.outvars]
    if not any(wanted):
      continue
    live.update(x for x in eqn.invars if not isinstance(x, Literal))
    name, params = eqn.primitive.name, eqn.params
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      shape = eqn.invars[0].aval.shape
      total += 2 * eqn.outvars[0].aval.size * math.prod(
          shape[i] for i in contracted)
    elif name == 'conv_general_dilated':
      kernel = eqn.invars[1].aval
      features = kernel.shape[params['dimension_numbers'].rhs_spec[0]]
      # A dilated input, as in the gradient of a stride, has zeros in between.
      total += (2 * eqn.outvars[0].aval.size * kernel.size / features
                / math.prod(params['lhs_dilation']))
    elif name in ('scan', 'while'):  # a turn needs all of the last one
      total += params.get('length', 1) * sum(map(operations, _inner(params)))
    else:
      total += sum(operations(x, wanted) for x in _inner(params)[-1:])
  return total


def _inner(params: dict[str, Any]) -> list[Any]:
  """The functions that an operation calls."""
  return [x for x in jax.tree.leaves(list(params.values()))
          if hasattr(getattr(x, 'jaxpr', x), 'eqns')]


def one_of(images: Images) -> jax.ShapeDtypeStruct:
  """Returns the shape [H, W, C] and the dtype of one of many images."""
  return jax.ShapeDtypeStruct(images.shape[1:], images.dtype)


def examples(recipe: Recipe, images: jax.ShapeDtypeStruct,
             make: Callable[..., Any] = lambda x: x) -> PyTree:
  """Makes abstract training data: images, with labels if the learner has them.

  Args:
    recipe: the recipe of the federation.
    images: [N, H, W, C].
    make: turns each array's shape and dtype into the result.
  """
  labels = jax.ShapeDtypeStruct(images.shape[:1], jnp.int32)
  return (Labelled(make(images), make(labels)) if recipe.labelled
          else make(images))


def per_image(recipe: Recipe, client: ClientState,
              image: jax.ShapeDtypeStruct) -> float:
  """Counts the operations of a step for one image.

  Args:
    recipe: the recipe of the federation.
    client: the shapes of one client's state.
    image: [H, W, C], the shape and dtype of an image.
  """
  learner = recipe.learner
  images = examples(recipe, _batch(recipe, image))
  found = jax.make_jaxpr(lambda client, images, rng: learner.step(
      learner.init(client, jnp.int32(0)), images, rng))(
          client, images, jax.eval_shape(lambda: jax.random.key(0)))
  return operations(found) / recipe.batch_size


def _batch(recipe: Recipe, image: jax.ShapeDtypeStruct
           ) -> jax.ShapeDtypeStruct:
  return image.update(shape=(recipe.batch_size, *image.shape))


def measured(recipe: Recipe, image: jax.ShapeDtypeStruct, work: float, *,
             seed: int) -> float:
  """Times steps on one device; returns the operations a second.

  Args:
    recipe: the recipe of the federation.
    image: [H, W, C], the shape and dtype of an image.
    work: what `per_image` counts.
    seed: of the weights and images.

  Raises:
    BadInput: a step does not fit this device.
  """
  learner = recipe.learner
  rng, steps = jax.random.key(seed), 2

  @jax.jit
  def start(rng):
    zeros = jnp.zeros((2, *image.shape))
    online = networks.init_online(recipe.nets, rng, zeros)
    _, clients = round_program.init_state(
        recipe, online, np.ones(1), rng, zeros[:1])
    client = jax.tree.map(lambda x: x[0], clients)
    return learner.init(client, jnp.int32(0))

  @jax.jit
  def run(state, images, rngs):  # a loop, since a round is one
    return jax.lax.scan(lambda state, x: learner.step(state, *x), state,
                        (images, rngs))
  rngs = jax.random.split(rng, steps)
  of_step = functools.partial(examples, recipe, _batch(recipe, image))
  stacked = of_step(lambda x: jax.ShapeDtypeStruct((steps, *x.shape), x.dtype))
  compiled = run.lower(jax.eval_shape(start, rng), stacked, rngs).compile()
  needed: Any = compiled.memory_analysis()
  size = (needed.argument_size_in_bytes + needed.output_size_in_bytes
          + needed.temp_size_in_bytes)
  if size > placement.device_bytes():
    raise BadInput(
        f'a step takes {size / 1e9:.0f} GB, more than a device here has '
        f'({placement.device_bytes() / 1e9:.0f} GB), and cannot be timed: give '
        'its speed with --rate, or choose a smaller config.model')
  images = jax.tree.map(lambda x: jax.random.randint(
      rng, x.shape, 0, 2 if x.dtype == jnp.int32 else jnp.iinfo(x.dtype).max
  ).astype(x.dtype), stacked)
  took = []
  state = start(rng)
  for _ in range(3):
    began = time.perf_counter()
    jax.block_until_ready(compiled(state, images, rngs))
    took.append(time.perf_counter() - began)
  return steps * recipe.batch_size * work / min(took[1:])
