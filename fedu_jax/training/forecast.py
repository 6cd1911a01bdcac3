"""Predicts the needs of a config from its shapes, without data.

The program of a device is compiled for abstract arguments. No arrays are
allocated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core.state import ClientArrays, ClientState, ServerState
from fedu_jax.data import folder_cache
from fedu_jax.data import sources
from fedu_jax.data.lazy_arrays import Images
from fedu_jax.models import networks
from fedu_jax.runtime import accelerators
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import prepare
from fedu_jax.training import step_cost
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.config import compatibility
from fedu_jax.training.config.config_dict import Config
from fedu_jax.training.engine import chunk_programs
from fedu_jax.training.engine import client_execution
from fedu_jax.training.engine import cost_model
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import feeding
from fedu_jax.training.engine import memory_needs
from fedu_jax.training.engine import placement
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine import slice_program
from fedu_jax.training.engine.recipe import Recipe

# Known sources -> training examples, pixels of a side, classes.
_KNOWN = {'digits': (1438, 8, 10), 'tfds:cifar10': (50_000, 32, 10),
          'tfds:cifar100': (50_000, 32, 100)}


class Machine(NamedTuple):
  """The machine that a config is planned for."""
  chips: int  # the number of devices; 0 for config.devices, or those here
  memory: float  # bytes of a device
  host_memory: float  # bytes
  shared_by: int = 0  # the devices that use the host's memory, on a CPU
  backend: str = ''  # 'cpu', 'gpu' or 'tpu'; '' for the one here
  device: str = ''  # the full name of its devices, if `backend` is given

  @property
  def memories(self) -> memory_needs.Machine:
    return memory_needs.Machine(self.memory, self.host_memory, self.shared_by)


class Forecast(NamedTuple):
  """The predicted needs of a config."""
  sizes: cost_model.Sizes
  program: int  # bytes of the round's program on a device
  working: int  # the part of `program` that is neither networks nor images
  per_image: float  # operations of a step for one image
  in_sums: bool  # whether the aggregation needs only sums
  execution: str  # 'map' or 'vmap', see `client_execution`
  note: str  # what was compiled for `program`; '' if nothing was


def data_of(config: Config, *, examples: int = 0,
            image_size: int = 0, classes: int = 0) -> sources.Dataset:
  """Makes data of the right shape, with zero images and evenly spread labels.

  Args:
    config: the config; its values override the arguments.
    examples: the number of training images; 0 if the source is known.
    image_size: pixels of a side; 0 if the source is known.
    classes: the number of classes; 0 if the source is known, or for 10.

  Raises:
    BadInput: a number is neither given nor known.
  """
  source = config.data.source
  known = _KNOWN.get(source, (0, 0, 10))
  count = examples or known[0]
  size = config.data.image_size or image_size or known[1]
  if not size:
    raise BadInput(f'how large the images of {source} are is not known here: '
                   'set --image_size or config.data.image_size')
  if not count and not config.data.max_examples:
    raise BadInput(f'how many images {source} has is not known here: set '
                   '--examples')
  if count and config.data.max_examples > count:
    raise BadInput(f'data.max_examples is {config.data.max_examples}, but the '
                   f'data has {count} training examples: lower it, or 0 for '
                   'all')
  count = config.data.max_examples or count
  zero = np.uint16(0) if config.data.keep_depth else np.uint8(0)
  # A view of one number.
  images = np.broadcast_to(zero, (count, size, size, config.data.channels))
  labels = np.arange(count, dtype=np.int32)
  return sources.Dataset(images, labels % (classes or known[2]),
                         owners=labels % config.clients)


class Round(NamedTuple):
  """The program of a round, before it is compiled.

  Attributes:
    recipe: the recipe of the federation.
    state: the result of `round_program.shapes`.
    sizes: the sizes of the federation, with its store.
    here: the clients on each group of devices.
    images: [N, H, W, C] of a client, padded to the largest; abstract.
  """
  recipe: Recipe
  state: tuple[ServerState, ClientState, Any]
  sizes: cost_model.Sizes
  here: int
  images: jax.ShapeDtypeStruct

  def compile(self, layout: device_mesh.Layout) -> jax.stages.Compiled:
    """Compiles the round for a layout of groups of devices."""
    groups = layout.mesh.shape[device_mesh.AXIS] if layout.mesh else 1
    return compile_round(self.recipe, self.state, self.images, layout=layout,
                         rows=groups * self.here, store=self.sizes.store,
                         chunk_steps=self.sizes.chunk_steps)


def _memory(one: Round) -> tuple[int, str]:
  """Compiles a round; returns the bytes of a device, and what was compiled.

  Two groups of devices are enough, because all groups do the same.
  """
  sizes = one.sizes
  groups, reduced = min(sizes.groups, 2), 0
  note = 'of one device' if sizes.groups == 1 else 'of one of several devices'
  if groups * sizes.group > len(jax.devices()):
    if sizes.group > 1:
      raise BadInput(f'{groups * sizes.group} devices must be here to plan for '
                     f'config.devices_per_client={sizes.group}')
    groups, reduced = 1, 2 * sizes.upload
    note = 'of a device alone, and 2 U for the all-reduce'
  layout = device_mesh.layout(
      str(groups * sizes.group), groups * one.here,
      devices_per_client=sizes.group)
  peak = cost_model.peak_memory(one.compile(layout))
  if not one.recipe.in_sums and not sizes.chunk:
    # Each device gathers all clients; the program has those of two groups.
    peak += (sizes.groups - groups) * sizes.at_once * sizes.state
  compiled_for = jax.default_backend().upper()
  return peak + reduced, f'{note}, by the compiler for {compiled_for}'


def forecast(config: Config, data: sources.Dataset, machine: Machine, *,
             measure: Callable[[Round], tuple[int, str]] = _memory
             ) -> Forecast:
  """Predicts the needs of a config.

  Args:
    config: a whole config that has been checked.
    data: the data of `data_of`.
    machine: the machine to plan for.
    measure: compiles a round; returns the bytes that it takes on a device, and
      what was compiled, and by which compiler.

  Raises:
    BadInput: a run on that machine would be refused.
  """
  recipe = build.recipe(config, machine.backend, machine.device)
  lengths = [len(part) for part in prepare.parts_of(config, data)]
  image = step_cost.one_of(data.train_images)
  compatibility.sides(checks.flatten(config),
                      data.train_images.shape[1])
  group = config.devices_per_client
  chips = (machine.chips or accelerators.wanted(config.devices).most
           or len(jax.devices()))
  if chips < group:
    raise BadInput(f'config.devices_per_client is {group}, but there are '
                   f'{chips} devices: at most that')
  sampled = recipe.is_sampled(config.clients)
  groups, share = device_mesh.spread(
      config.cohort if sampled else config.clients, chips // group)
  state = shapes(recipe, image.shape)
  server, client, _ = state
  sizes = memory_needs.sizes_of(
      recipe, server, client, lengths, image=image.size * image.dtype.itemsize,
      data=_held(config, data.train_images), groups=groups,
      at_once=config.clients_per_device or share)
  sizes = feeding.choose(recipe, sizes, machine.memory)
  sizes = sizes._replace(
      store=placement.store_of(recipe, sizes, machine.memories))
  recipe = recipe.with_full_steps(
      [lengths], slice_=0 if sizes.store == 'device' else
      sizes.groups * sizes.at_once)
  here = config.clients if sizes.store == 'device' and sampled else (
      sizes.at_once)
  if memory_needs.lacking(sizes, machine.memories):
    # It does not fit, so there is no need to compile.
    peak, note = cost_model.program_at_least(sizes), ''
  else:
    padded = image.update(shape=(max(lengths), *image.shape))
    peak, note = measure(Round(recipe, state, sizes, here, padded))
  kept = sizes.state + sizes.chunk if sizes.chunk else (
      sizes.server + here * (sizes.state + sizes.images))
  return Forecast(sizes, peak, peak - kept,
                  step_cost.per_image(recipe, client, image), recipe.in_sums,
                  client_execution.of(recipe, server.online, image.shape,
                                      clients=sizes.at_once), note)


def _held(config: Config, images: Images) -> int:
  """The bytes of images that a run keeps in the host's memory."""
  size = images.size * images.dtype.itemsize
  folder = config.data.source.startswith('folder:')
  return 0 if folder and folder_cache.stays_on_disk(size) else size


def shapes(recipe: Recipe, shape: tuple[int, ...]
           ) -> tuple[ServerState, ClientState, Any]:
  """Returns the shapes of the server, of one client and of the run's key.

  Args:
    recipe: the recipe of the federation.
    shape: [H, W, C] of its images.
  """
  online = jax.eval_shape(lambda: networks.init_online(
      recipe.nets, jax.random.key(0), jnp.zeros((2, *shape))))
  return round_program.shapes(recipe, online, shape)


def compile_round(recipe: Recipe,
                  state: tuple[ServerState, ClientState, Any],
                  images: jax.ShapeDtypeStruct, *, layout: device_mesh.Layout,
                  rows: int, store: str, together: int = 1,
                  chunk_steps: int = 0) -> jax.stages.Compiled:
  """Compiles a round for abstract arguments.

  A run with arrays of these shapes does not compile it again.

  Args:
    recipe: the recipe of the federation.
    state: the result of `round_program.shapes`.
    images: [N, H, W, C] of a client, padded to the largest; abstract.
    layout: the layout of the clients that train at once.
    rows: the clients on all devices together, with padding.
    store: 'device', 'host' or 'disk'.
    together: the number of federations that run as one program.
    chunk_steps: the steps of a chunk of images, whose program is then compiled
      in place of a round's; 0 if images are on a device as a whole.
  """
  if chunk_steps:
    most, *pixel = images.shape
    batch = images.update(shape=(recipe.batch_size, *pixel))
    return chunk_programs.compile_steps(
        recipe, chunk_programs.Shapes(step_cost.examples(recipe, batch), most,
                                      chunk_steps), layout, state[1])
  several = (together,) if together > 1 else ()
  by_client, everywhere = map(layout.sharding, (device_mesh.BY_CLIENT,
                                                device_mesh.EVERYWHERE))

  def of_all(x):
    return jax.ShapeDtypeStruct((*several, *x.shape), x.dtype,
                                sharding=everywhere)

  def stacked(x):
    return jax.ShapeDtypeStruct((*several, rows, *x.shape), x.dtype,
                                sharding=by_client)
  server, client, rng = state
  server, rng = jax.tree.map(of_all, (server, rng))
  clients = jax.tree.map(stacked, client)
  arrays = ClientArrays(step_cost.examples(recipe, images, stacked),
                        stacked(jax.ShapeDtypeStruct((), jnp.int32)))
  if store == 'device':
    return round_program.compile_round(
        recipe, server, clients, arrays, rng, layout=layout)
  return slice_program.compile_slice(
      recipe, server, clients, arrays, arrays.num_examples, rng,
      layout=layout)
