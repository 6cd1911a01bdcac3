"""Federations whose clients are all kept on the devices that train them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.core import local_training
from fedu_jax.core.state import ClientArrays, Metrics, Online, PyTree
from fedu_jax.runtime import multihost
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import round_program
from fedu_jax.training.engine.federation import Federation
from fedu_jax.training.engine.federation import Run
from fedu_jax.training.engine.federation import Start
from fedu_jax.training.engine.recipe import Recipe


class ClientsOnDevice(Federation):
  """One federation, or several in step that run as one program."""

  def __init__(self, starts: Sequence[Start], saved: Sequence[Checkpoints], *,
               recipe: Recipe, examples: PyTree, layout: device_mesh.Layout):
    """Restores federations, or makes new ones.

    Args:
      starts: the start of each federation; a layout of several devices allows
        one only.
      saved: the checkpoints of each federation.
      recipe: the recipe of all of them.
      examples: the training data: images [N, H, W, C], or Labelled.
      layout: the layout of the clients.
    """
    self._recipe = recipe.with_full_steps(
        [list(map(len, start.parts)) for start in starts])
    self._layout = layout
    self._federations = len(starts)
    begun = [self._begin(start, own, examples)
             for start, own in zip(starts, saved)]
    self.done = int(begun[0][0].server.round)
    self._run: Run  # with a leading axis, if there are several federations
    self._arrays: ClientArrays
    self._run, self._arrays = begun[0] if len(begun) == 1 else jax.tree.map(
        lambda *x: jnp.stack(x), *begun)

  def _begin(self, start: Start, saved: Checkpoints, examples: PyTree
             ) -> tuple[Run, ClientArrays]:
    """Restores or makes a federation; copies its images to the devices."""
    layout = self._layout
    padding = [np.array([], int)] * (layout.padded - layout.num_clients)
    by_client = layout.sharding(device_mesh.BY_CLIENT)
    everywhere = layout.sharding(device_mesh.EVERYWHERE)
    parts = [*start.parts, *padding]
    arrays = local_training.client_arrays(examples, parts, by_client)
    image = jax.tree.leaves(arrays.images)[0]
    sizes = np.array([len(part) for part in parts])
    where = everywhere, by_client, everywhere

    def init():
      rng = jax.random.key(start.seed)
      return (*round_program.init_state(
          self._recipe, start.online, sizes, rng,
          jnp.zeros((1, *image.shape[2:]))), rng)
    # Made with its final sharding: one device may not have room for all, and a
    # host does not reach all devices. The sharding is that of a restored
    # checkpoint, so that a resumed run needs no other program.
    first = Run(*(jax.jit(init, out_shardings=where)() if layout.mesh
                  else jax.device_put(init(), where)))
    return saved.restore(first) or first, arrays

  def compile(self) -> None:
    self.compiled = round_program.compile_round(
        self._recipe, self._run.server, self._run.clients, self._arrays,
        self._run.rng, layout=self._layout)

  @property
  def where(self) -> str:
    mesh = self._layout.mesh
    return (f' for {mesh.size} devices' if mesh else '') + (
        f' of {jax.process_count()} hosts' if multihost.several() else '')

  def advance(self) -> list[Metrics]:
    # A round must not move data between host and device: that raises here.
    with jax.transfer_guard('disallow_explicit'):
      server, clients, metrics = self.compiled(
          self._run.server, self._run.clients, self._arrays, self._run.rng)
    self._run = Run(server, clients, self._run.rng)
    metrics = multihost.gather(metrics)
    self.done += 1
    return [{name: x[:self._layout.num_clients]
             for name, x in self._of(i, metrics).items()}
            for i in range(self._federations)]

  def state(self, i: int) -> Run:
    return self._of(i, self._run)

  def online(self, i: int) -> Online:
    return multihost.own_copy(self._of(i, self._run.server.online))

  def _of(self, i: int, tree: PyTree) -> PyTree:
    """Returns the part of federation `i` of a tree with all of them."""
    return tree if self._federations == 1 else jax.tree.map(
        lambda x: x[i], tree)
