"""FedSC: the spectral contrastive loss of all clients; the whole method.

Clients upload the second moment of their embeddings. The server averages them.
Each client downloads the average, and subtracts its own part.
"""

from typing import NamedTuple

import jax.numpy as jnp

from fedu_jax.core import precision
from fedu_jax.core import trees
from fedu_jax.core.aggregation import Add
from fedu_jax.core.aggregation import aggregate
from fedu_jax.core.method import Aggregation, Method, UpdateRule
from fedu_jax.core.state import (
  Array,
  ClientState,
  Learner,
  Metrics,
  Online,
  PyTree,
  ServerState,
)
from fedu_jax.core.update_rules import global_predictor
from fedu_jax.learners import online_step
from fedu_jax.learners.losses import feature_std, spectral, within
from fedu_jax.models import networks


class FedSCMemory(NamedTuple):
  """Second moments of embeddings, which are means of z z^T, [D, D]."""
  own: Array  # [D, D]; over the client's last local training
  others: Array  # [D, D]; the sum over the other clients of share * moment
  share: Array  # [] the client's share of all images


class Moments(NamedTuple):
  """The server's memory: the mean moment of the last cohort."""
  mean: Array  # [D, D]
  num_examples: Array  # [] f32, the images of the clients in the mean


class FedSCState(NamedTuple):
  """FedSC's state during local training, passed from step to step."""
  online: Online
  memory: FedSCMemory
  weight: Array  # [] the weights in the moving average `own`, summed
  opt_state: PyTree
  round: Array


def fedsc(nets: networks.Nets, view: online_step.View, *,
          make_tx: online_step.MakeTx, decay: float = 0.99,
          mu: float = 4.0) -> Learner:
  """Builds FedSC as a Learner (Jing et al., ICML 2024).

  The spectral contrastive loss (HaoChen et al. 2021) over the images of all
  clients needs no images or embeddings of the other clients, only their second
  moments. Let q_k be client k's share of all images, and R_k = E[z z^T]. Then

    -2 E[z z+] + q_k tr(R_k R_k) + 2 tr(R_k sum over j != k of q_j R_j)

  has the same gradient for client k, if all R_j are from the same network. The
  released code (FedSC_ICML2024, clients.py) differs in three points. It uses 1
  for q_k at the start and lowers it over the rounds, to 0.2 with five clients.
  It computes R_k by five passes over the images with the downloaded network;
  here R_k is a moving average over the client's last training. It adds noise to
  R_k for privacy. Embeddings are bounded as in that code. Use it with
  `average_moments` and `take_moments`.

  Args:
    nets: the encoder's and the predictor's modules; the predictor is not used.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
    decay: the factor of the old value in the moving average of own moments.
    mu: the square of the largest norm of an embedding, 2 to 5 in the released
      code's configs. Embeddings repel more if it is larger.
  """
  def memory(online: Online, rng: Array, image: Array) -> FedSCMemory:
    """The memory of a client that knows no other clients."""
    del rng
    z = online_step.embedding(nets, online, image)
    none = jnp.zeros((z.shape[-1], z.shape[-1]), z.dtype)
    return FedSCMemory(none, none, jnp.ones((), z.dtype))

  def init(client: ClientState, round_: Array) -> FedSCState:
    known = client.memory.learner
    return FedSCState(
        client.online, known._replace(own=jnp.zeros_like(known.own)),
        jnp.zeros_like(known.share),
        make_tx(round_).init(online_step.params_of(client.online)), round_)

  def step(state: FedSCState, images: Array,
           rng: Array) -> tuple[FedSCState, Metrics]:
    x1, x2 = online_step.draw_views(nets, view, images, rng)
    known = state.memory

    def objective(online):
      z1, z2, encoder = online_step.two_views(
          nets.encoder, online.encoder, x1, x2, together=nets.together)
      z1, z2 = within(z1, mu**0.5), within(z2, mu**0.5)
      value = spectral(z1, z2, others=known.others, share=known.share)
      z = jnp.concatenate([z1, z2])
      moment = jnp.matmul(z.T, z, precision=precision.FULL) / len(z)
      return value, (online._replace(encoder=encoder),
                     (moment, feature_std(z1)))
    value, online, (moment, spread), opt_state = online_step.descend(
        objective, state.online, state.opt_state, make_tx(state.round))
    known = known._replace(own=decay * known.own + (1 - decay) * moment)
    weight = decay * state.weight + (1 - decay)
    return (FedSCState(online, known, weight, opt_state, state.round),
            {'loss': value, 'feature_std': spread})

  def final(client: ClientState, state: FedSCState) -> ClientState:
    own = state.memory.own / jnp.maximum(state.weight, 1e-6)
    learner = state.memory._replace(own=own)
    return client._replace(
        online=state.online, memory=client.memory._replace(learner=learner))

  return Learner(init, step, final, memory)


def upload_moments(client: ClientState, cohort: int) -> tuple[Online, Array]:
  """What a client sends: its network, and its own second moment [D, D]."""
  del cohort
  return client.online, client.memory.learner.own


def no_moments(clients: ClientState) -> Moments:
  """The server's memory before the first round: zeros, over no images."""
  return Moments(clients.memory.learner.own[0], jnp.float32(0))


def average_moments(server: ServerState, clients: ClientState, *,
                    add: Add = trees.weighted_sum) -> ServerState:
  """FedAvg, and the mean of the clients' second moments.

  Arguments as in `aggregate`.
  """
  sums = add(clients.memory.learner.own, clients.num_examples)
  memory = Moments(trees.mean(sums, server.memory.mean), sums[1])
  return aggregate(server, clients, add=add)._replace(memory=memory)


def download_moments(server: ServerState) -> tuple[Online, Moments]:
  """What a client receives: the online network and the mean moments."""
  return server.online, server.memory


def take_moments(client: ClientState, server: ServerState) -> ClientState:
  """Takes the server's networks, and the second moments of the others."""
  client = global_predictor(client, server)
  known, own = server.memory, client.memory.learner.own
  # Whether this client's moment is in the mean.
  among = (client.last_round == server.round - 1) & client.uploaded
  total = known.num_examples + jnp.where(among, 0, client.num_examples)
  share = client.num_examples / jnp.maximum(total, 1)
  others = (known.num_examples / jnp.maximum(total, 1) * known.mean
            - jnp.where(among, share, 0) * own)
  learner = client.memory.learner._replace(
      others=others.astype(own.dtype), share=share.astype(own.dtype))
  return client._replace(memory=client.memory._replace(learner=learner))


FEDSC = Method(
    fedsc,
    Aggregation(average_moments, upload=upload_moments, memory=no_moments),
    UpdateRule(take_moments, download=download_moments))
