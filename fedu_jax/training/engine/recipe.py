"""The recipe of a federation: all functions and numbers that the engine needs.

`training/config/build.py` makes a recipe from a config. A script can make one
by hand: the fields without a default are the method and its numbers.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import inspect

from fedu_jax.core import participation
from fedu_jax.core import trees
from fedu_jax.core.local_training import Distance
from fedu_jax.core.method import Aggregation, UpdateRule
from fedu_jax.core.state import Array, Learner
from fedu_jax.models import networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """A method, its numbers, and preferences for devices and memory.

  Two recipes are equal if their functions are the same objects and their
  numbers are equal. Rounds of equal recipes are compiled once.

  Attributes:
    nets: the networks' modules.
    learner: the SSL method, with its loss, views and optimiser.
    rule: the update rule, with its choices bound.
    aggregation: the aggregation, with its choices bound.
    divergence: (params, params) -> [], the drift of an encoder.
    labelled: whether the learner trains on labels; no SSL method does.

    rounds: the number of rounds of a run.
    local_epochs: passes over a client's images in a round.
    batch_size: images in a step.
    execution: 'auto', 'map' or 'vmap', see `rounds.map_clients` and
      `client_execution`.

    cohort: the number of clients that train in a round; 0 for all.
    sample: (key, num_examples [K], size=M) -> ids [M], draws the cohort.
    dropout: the probability that an upload is lost.
    stragglers: the probability that a client stops early.
    least: the smallest share of its steps that a straggler does.

    packed: whether small arrays are joined from step to step, see
      `core.packing`.
    full_steps: whether each client of a round does as many steps as the
      largest, so that no step is skipped; see `with_full_steps`.
    bandwidth: bytes a second of a device's memory, for `execution='auto'`; 0 if
      it is unknown.

    devices: the kind of devices and the most of them, see `config.devices`.
    devices_per_client: the devices of a group, which share each batch.
    clients_per_device: the most clients that train at once on a group of
      devices; 0 for no limit.
    store: where clients are kept: 'device', 'host' or 'disk'; 'auto' for the
      first of these with room.
    feed: how a client's images come to a device: 'whole', in 'chunks' of steps,
      or 'auto', see `feeding.choose`.
    chunk_steps: the steps of a chunk; 0 for as many as the memory has room for.

    checkpoint_every: rounds between checkpoints.
    checkpoint_keep: the number of checkpoints that stay.
    evaluation_every: rounds between kNN scores; 0 for none.

    aggregation_name: the name of the aggregation in messages.
    has_queue: whether clients have a queue of keys, for advice on memory.
    dtype: the dtype of the networks' products, for advice on memory.
  """
  nets: networks.Nets
  learner: Learner
  rule: UpdateRule
  aggregation: Aggregation
  divergence: Distance = trees.conv_distance
  labelled: bool = False

  rounds: int
  local_epochs: int
  batch_size: int
  execution: str = 'auto'

  cohort: int = 0
  sample: Callable[..., Array] = participation.uniform
  dropout: float = 0.0
  stragglers: float = 0.0
  least: float = 1.0
  packed: bool = False
  full_steps: bool = False
  bandwidth: float = 0.0

  devices: str = 'auto'
  devices_per_client: int = 1
  clients_per_device: int = 0
  store: str = 'auto'
  feed: str = 'auto'
  chunk_steps: int = 0

  checkpoint_every: int = 1
  checkpoint_keep: int = 1
  evaluation_every: int = 0

  aggregation_name: str = 'of this recipe'
  has_queue: bool = False
  dtype: str = 'float32'

  def with_full_steps(self, lengths: Iterable[Sequence[int]], *,
                      slice_: int = 0) -> 'Recipe':
    """Sets `full_steps`, if no client skips a step.

    Args:
      lengths: for each federation that runs in the same program, the number of
        images of each client.
      slice_: the clients of a slice, if cohorts train in slices. They must be
        of full slices, since padding would train too.
    """
    own = [list(counts) for counts in lengths]
    steps = {length // self.batch_size for counts in own for length in counts}
    cohort = self.cohort if self.is_sampled(len(own[0])) else len(own[0])
    padded = bool(slice_ and cohort % slice_)
    return dataclasses.replace(self, full_steps=(
        len(steps) == 1 and not self.stragglers and not padded))

  @property
  def masks_steps(self) -> bool:
    """Whether a skipped step is computed, see `local_training.local_update`.

    All devices of a group must take part in the sums of each step.
    """
    return self.execution == 'vmap' or self.devices_per_client > 1

  @property
  def in_sums(self) -> bool:
    """Whether the aggregation needs only sums: it has an argument `add`.

    Then clients can train in slices, and devices exchange sums and not uploads.
    """
    return 'add' in inspect.signature(self.aggregation.fn).parameters

  def is_sampled(self, num_clients: int) -> bool:
    """Whether a round trains a drawn cohort, and not all clients."""
    return 0 < self.cohort < num_clients
