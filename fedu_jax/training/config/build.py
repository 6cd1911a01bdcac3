"""Makes a recipe, with bound functions and numbers, from a checked config."""

from collections.abc import Callable
import functools
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
import ml_collections
import optax

from fedu_jax.core import precision
from fedu_jax.core.state import Array, Learner
from fedu_jax.models import frozen
from fedu_jax.models import networks
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config import binding
from fedu_jax.training.config import contracts
from fedu_jax.training.engine import backend_choices
from fedu_jax.training.engine.recipe import Recipe


def recipe(config: ml_collections.ConfigDict, backend: str = '',
           device: str = '') -> Recipe:
  """Makes the recipe of a config.

  Equal configs give the same functions, so that their rounds compile once. The
  seed is no part of a recipe.

  Args:
    config: a whole config that has been checked.
    backend: 'cpu', 'gpu' or 'tpu', for which rounds are compiled; '' for the
      one that JAX uses here.
    device: the full name of the backend's devices, if `backend` is given.
  """
  plain = ml_collections.ConfigDict(config.to_dict())
  plain.seed = 0
  return _recipe(ml_collections.FrozenConfigDict(plain),
                 binding.functions(config),
                 backend_choices.choices(backend, device))


@functools.lru_cache(maxsize=32)
def _recipe(config: Any, functions: tuple[Callable[..., Any], ...],
            choices: backend_choices.Choices) -> Recipe:
  """Makes the recipe of a config that can be hashed."""
  del functions  # in the cache's key, because modules may be reloaded
  nets, stage = binding.bind(config, 'model')(), config.model.frozen
  if stage:
    _check_frozen(nets, stage)
  # Devices that share a batch would exchange halves of joined views.
  nets = nets._replace(together=(
      choices.views_together and config.devices_per_client == 1
      and networks.take_views(nets)))
  if choices.rounded and config.model.dtype != 'float32':
    nets = nets._replace(rounded=config.model.dtype)
  return Recipe(
      nets=nets, learner=learner(config, nets),
      rule=frozen.rule(binding.rule(config), stage),
      aggregation=frozen.aggregation(binding.aggregation(config), stage),
      labelled=binding.labelled(config),
      divergence=frozen.divergence(binding.bind(config, 'divergence'), stage),
      rounds=config.rounds, local_epochs=config.local_epochs,
      batch_size=config.batch_size, execution=config.execution,
      packed=choices.packed, bandwidth=choices.bandwidth,
      cohort=config.cohort, sample=_sampling(config), **config.participation,
      devices=config.devices, devices_per_client=config.devices_per_client,
      clients_per_device=config.clients_per_device, store=config.store,
      feed=config.feed, chunk_steps=config.chunk_steps,
      checkpoint_every=config.checkpoint.every,
      checkpoint_keep=config.checkpoint.keep,
      evaluation_every=config.evaluation.every,
      aggregation_name=config.aggregation.name,
      has_queue=binding.takes(config, 'learner', 'queue_size'),
      dtype=config.model.dtype)


def _check_frozen(nets: networks.Nets, stage: str) -> None:
  """Checks that the encoder can be frozen up to a stage."""
  try:
    frozen.check(nets, stage)
  except ValueError as error:
    raise BadInput(f'config.model.frozen is {stage!r}, but {error}') from error


def learner(config: ml_collections.ConfigDict, nets: networks.Nets) -> Learner:
  """Binds the SSL method and its optimiser: SGD at the round's rate.

  The products of a step have the config's precision, a researcher's own too.

  Args:
    config: a whole config that has been checked.
    nets: the networks.
  """
  def make_tx(round_: ArrayLike) -> optax.GradientTransformation:
    chosen = config.optimizer
    rate = learning_rate(chosen.learning_rate, chosen.schedule, config.rounds,
                         round_)
    return optax.chain(optax.add_decayed_weights(chosen.weight_decay),
                       optax.sgd(rate, momentum=chosen.momentum))
  bound = binding.bind(config, 'learner', make_tx=make_tx,
                       loss=binding.bind(config, 'loss'))
  made = frozen.learner(lambda nets: bound(nets, binding.view(config)), nets,
                        config.model.frozen)
  return made._replace(
      step=precision.computed_in(config.model.precision, made.step))


def learning_rate(highest: float, schedule: str, rounds: int,
                  round_: ArrayLike) -> ArrayLike:
  """The learning rate of a round, counted from 0."""
  if schedule == 'cosine':
    return 0.5 * highest * (1 + jnp.cos(jnp.pi * round_ / rounds))
  return highest


def _sampling(config: Any) -> Callable[..., Array]:
  """Binds the sampling, and checks its results."""
  sample = binding.bind(config, 'sampling', size=config.cohort)

  def checked(rng: Array, num_examples: Array, *, size: int) -> Array:
    return contracts.cohort(sample(rng, num_examples),
                            name=config.sampling.name, size=size)
  return checked
