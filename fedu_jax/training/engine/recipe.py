"""What a federation computes, and where it may run: all that the engine reads.

`training/config/build.py` makes one of a config. A script can make one by hand:
the fields without a default are the method and its numbers.
"""

from collections.abc import Callable
import dataclasses
import inspect

from fedu_jax.core.local_training import Distance
from fedu_jax.core.method import Aggregation, UpdateRule
from fedu_jax.core import participation
from fedu_jax.core.state import Array, Learner
from fedu_jax.core import trees
from fedu_jax.models import networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """A method, its numbers, and wishes for where it runs.

  Two recipes are equal if their functions are the same objects and their
  numbers are equal; rounds of equal recipes are compiled once.

  Attributes:
    nets: the networks' modules.
    learner: the SSL method, with its loss, views and optimiser.
    rule: what a client makes of the download, with its choices bound.
    aggregation: what the server makes of the uploads, with its choices bound.
    divergence: (params, params) -> [], how far an encoder drifted.
    labelled: whether the learner trains on labels; no SSL method does.

    rounds: how many rounds a run has.
    local_epochs: how often a client sees each of its images in a round.
    batch_size: images of a step.
    execution: how the clients of a device share it, see `rounds.map_clients`.

    cohort: how many clients train in a round; 0: all.
    sample: (key, num_examples [K], size=M) -> ids [M], which clients these are.
    dropout: the probability that an upload is lost.
    stragglers: the probability that a client stops early.
    least: the smallest share of its steps that a straggler does.

    devices: how many devices at most, as a text; auto: all that JAX sees.
    devices_per_client: how many devices share each batch of a client.
    clients_per_device: how many clients at most train at once on a device, or
      on a group of devices that share batches; 0: as many as there are.
    store: where clients are kept that do not train: device, host or disk; auto:
      the first of these that has room.

    checkpoint_every: rounds between checkpoints.
    checkpoint_keep: how many checkpoints stay.
    evaluation_every: rounds between readings of kNN accuracy; 0: none.

    aggregation_name: what messages call the aggregation.
    has_queue: whether clients keep a queue of keys; advice on memory names it.
    dtype: of the products in the networks; advice on memory names it.
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

  devices: str = 'auto'
  devices_per_client: int = 1
  clients_per_device: int = 0
  store: str = 'auto'

  checkpoint_every: int = 1
  checkpoint_keep: int = 1
  evaluation_every: int = 0

  aggregation_name: str = 'of this recipe'
  has_queue: bool = False
  dtype: str = 'float32'

  @property
  def in_sums(self) -> bool:
    """Whether the aggregation needs only sums over clients.

    It then has an argument `add`. Clients can train in slices, and devices
    exchange sums in place of all uploads.
    """
    return 'add' in inspect.signature(self.aggregation.fn).parameters

  def is_sampled(self, num_clients: int) -> bool:
    """Whether each round trains a cohort of so many clients, and not all."""
    return 0 < self.cohort < num_clients
