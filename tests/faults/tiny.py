"""The federation that is attacked: as small as possible, and ill on demand.

It is a config file with its pieces. Client i has 16 + i images, so a learner
that gets only a client's state knows which client it trains.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import smoke
from fedu_jax.core import aggregation
from fedu_jax.core import trees
from fedu_jax.core.state import Array, ClientState, Learner, ServerState
from fedu_jax.learners import byol
from fedu_jax.models import networks
from fedu_jax.models.batchnorm import BatchNorm
from fedu_jax.models.layers import Linear
from fedu_jax.models.layers import MLP

BATCH = 8


class Backbone(nn.Module):
  """One layer; by its name it is a convolution, which the divergence measures.
  """
  width: int

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    x = Linear(4 * self.width, name='conv1')(x.reshape(len(x), -1))
    return nn.relu(BatchNorm(name='bn1')(x, train=train))


def nets(*, width: int = 2, hidden: int = 8, features: int = 4
         ) -> networks.Nets:
  """The smallest networks that have all kinds of parts."""
  return networks.Nets(
      networks.Encoder(Backbone(width), MLP(hidden, features)),
      MLP(hidden, features))


def ladder(labels: np.ndarray, num_clients: int, rng: np.random.RandomState
           ) -> list[np.ndarray]:
  """Gives client i two batches and i examples more."""
  order, sizes = rng.permutation(len(labels)), 2 * BATCH + np.arange(
      num_clients)
  return np.split(order, np.cumsum(sizes))[:-1]


def ill_byol(nets: networks.Nets, view: Any, *, make_tx: Any, ill: tuple,
             value: str, at: int, **choices: Any) -> Learner:
  """BYOL whose gradients go wrong for some clients.

  Args:
    nets: as for `byol.byol`.
    view: a view, as for `byol`.
    make_tx: round -> the optimiser.
    ill: the clients; all of them if it names none.
    value: is added to each of their gradients, as a text: 'nan'.
    at: in the round after so many.
    **choices: as for `byol.byol`.
  """
  well = byol.byol(nets, view, make_tx=make_tx, **choices)

  def init(client: ClientState, round_: Array):
    who = client.num_examples - 2 * BATCH
    chosen = jnp.isin(who, jnp.asarray(ill, who.dtype)) if ill else True
    added = jnp.where(chosen & (round_ == at), float(value), 0)
    return well.init(client, round_), added

  def step(state, images, rng):
    inner, added = state

    def make_ill(round_):
      tx = make_tx(round_)
      return tx._replace(update=lambda grads, *rest: tx.update(
          jax.tree.map(lambda x: x + added, grads), *rest))
    inner, metrics = byol.byol(
        nets, view, make_tx=make_ill, **choices).step(inner, images, rng)
    return (inner, added), metrics

  return Learner(init, step, lambda client, state: well.final(
      client, state[0]))


def ill_mean(server: ServerState, clients: ClientState, *, at: int,
             add: aggregation.Add = trees.weighted_sum) -> ServerState:
  """FedAvg that returns NaN in the round after so many."""
  after = aggregation.fedavg(server, clients, add=add)
  return after._replace(online=jax.tree.map(
      lambda x: jnp.where(server.round == at, jnp.nan, x), after.online))


def get_config(mean: str = 'fedavg') -> ml_collections.ConfigDict:
  """Returns the smoke config with all that, and nothing to score by the way.

  Args:
    mean: 'fedavg', or 'ill_mean'.
  """
  config = smoke.get_config()
  config.rounds = 3
  config.batch_size = BATCH
  config.data.max_examples = 120
  config.partition.name = 'tests.faults.tiny:ladder'
  config.model.name = 'tests.faults.tiny:nets'
  config.model.hidden, config.model.features = 8, 4
  config.learner.name = 'tests.faults.tiny:ill_byol'
  config.learner.ill = (2,)
  config.learner.value = 'nan'
  config.learner.at = 1
  if mean == 'ill_mean':
    config.aggregation.name = 'tests.faults.tiny:ill_mean'
    config.aggregation.at = 1
  config.optimizer.schedule = 'constant'  # or more rounds compile anew
  config.evaluation.every = 0
  config.checkpoint.every = 1
  config.checkpoint.keep = 5
  return config
