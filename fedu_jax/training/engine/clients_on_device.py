"""Federations whose clients all lie on the devices that train them."""

from collections.abc import Sequence
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fedu_jax.core import local_training
from fedu_jax.core.state import Metrics, Online, PyTree
from fedu_jax.models import networks
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime import multihost
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import round_program
from fedu_jax.training import prepare


class Resident:
  """One federation, or several at the same round that run as one program."""

  def __init__(self, members: Sequence[prepare.Member],
               saved: Sequence[Checkpoints], *,
               config: ml_collections.ConfigDict, nets: networks.Nets,
               examples: PyTree, layout: device_mesh.Layout):
    """Restores federations, or makes ones that have not trained yet.

    Args:
      members: the federations; one, if the layout has several devices.
      saved: their checkpoints.
      config: of all of them, but for the seed.
      nets: likewise.
      examples: the data whose rows they own: images u8 [N, H, W, C], or
        Labelled.
      layout: of their clients.
    """
    self._config, self._nets, self._layout = config, nets, layout
    self._members = len(members)
    begun = [self._begin(member, own, examples)
             for member, own in zip(members, saved)]
    self.done = int(begun[0][0].server.round)
    (self._run, self._arrays), = begun if len(begun) == 1 else [
        jax.tree.map(lambda *x: jnp.stack(x), *begun)]

  def _begin(self, member, saved, examples):
    layout = self._layout
    padding = [np.array([], int)] * (layout.padded - layout.num_clients)
    by_client = layout.sharding(device_mesh.BY_CLIENT)
    everywhere = layout.sharding(device_mesh.EVERYWHERE)
    parts = [*member.parts, *padding]
    arrays = local_training.client_arrays(examples, parts, by_client)
    image = jax.tree.leaves(arrays.images)[0]
    sizes = np.array([len(part) for part in parts])
    where = everywhere, by_client, everywhere

    def init():
      rng = jax.random.key(member.seed)
      return (*round_program.init_state(
          self._config, self._nets, member.online, sizes, rng,
          jnp.zeros((1, *image.shape[2:]))), rng)
    # Made where it will lie: no device has room for all, no host reaches all.
    # Placed as a restored checkpoint is, or a resumed run would compile anew.
    start = prepare.Run(*(jax.jit(init, out_shardings=where)() if layout.mesh
                       else jax.device_put(init(), where)))
    return saved.restore(start) or start, arrays

  def compile(self) -> None:
    """Makes the program that `advance` runs."""
    self.compiled = round_program.compile_round(
        self._config, self._nets, self._run.server, self._run.clients,
        self._arrays, self._run.rng, layout=self._layout)

  @property
  def where(self) -> str:
    """A few words for the console; none if there is nothing to say."""
    mesh = self._layout.mesh
    return (f' for {mesh.size} devices' if mesh else '') + (
        f' of {jax.process_count()} hosts' if multihost.several() else '')

  def advance(self) -> list[Metrics]:
    """Does a round; returns its metrics, [M] each, of each federation."""
    # A round does not wait for the host: what would cross raises.
    with jax.transfer_guard('disallow_explicit'):
      server, clients, metrics = self.compiled(
          self._run.server, self._run.clients, self._arrays, self._run.rng)
    self._run = prepare.Run(server, clients, self._run.rng)
    metrics = multihost.gather(metrics)
    self.done += 1
    return [{name: x[:self._layout.num_clients]
             for name, x in self._of(i, metrics).items()}
            for i in range(self._members)]

  def state(self, i: int) -> prepare.Run:
    """What a checkpoint of a federation holds."""
    return self._of(i, self._run)

  def named(self, i: int) -> Sequence[pathlib.Path]:
    """The files beside a checkpoint that it needs."""
    del i
    return ()

  def saved(self, oldest: int) -> None:
    """Learns that no checkpoint is left of fewer rounds than `oldest`."""
    del oldest

  def online(self, i: int) -> Online:
    """A federation's global network, on one device, which scores it."""
    return multihost.own_copy(self._of(i, self._run.server.online))

  def _of(self, i, tree):
    return tree if self._members == 1 else jax.tree.map(lambda x: x[i], tree)
