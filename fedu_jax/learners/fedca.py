"""FedCA: SimCLR with negatives from other clients; the whole method.

Clients upload embeddings of their images. The server keeps the newest ones in a
dictionary, and clients download it as more negatives.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
from fedu_jax.learners.losses import feature_std, nt_xent, unit
from fedu_jax.models import networks


class Dictionary(NamedTuple):
  """Embeddings of images of all clients, the newest first."""
  entries: Array  # [N, D], unit vectors
  owners: Array  # [N] i32, tags of the clients they are from; 0 = random entry


class FedCAMemory(NamedTuple):
  """A client's copy of the dictionary, and the keys that it will upload."""
  dictionary: Dictionary  # downloaded from the server
  keys: Array  # [N, D], embeddings of the client's own images, newest first
  tag: Array  # [] i32, marks the client's own entries; 0 = not drawn yet


class FedCAState(NamedTuple):
  """FedCA's state during local training, passed from step to step."""
  online: Online
  memory: FedCAMemory
  opt_state: PyTree
  round: Array


def fedca(nets: networks.Nets, view: online_step.View, *,
          make_tx: online_step.MakeTx, temperature: float = 0.07,
          queue_size: int = 1024) -> Learner:
  """Builds FedCA as a Learner, without its alignment module.

  Zhang et al. (arXiv 2010.08982) describe two modules:

  - the dictionary: clients upload embeddings of their images, the server sends
    them to all clients, and they are negatives of the contrastive loss;
  - the alignment: a penalty on the distance to a model trained on public data.
    This setting has no such data, and the weight could not be obtained.

  The size of the dictionary and the temperature could not be obtained either.
  The temperature here is SimCLR's in FedU's released code. The dictionary is
  small, and a client's own entries are no negatives, because the linear probe
  falls with the size and with own entries. After 30 rounds of batches of 32
  (one seed) it was 42.4 % without a dictionary; 41.8 with 256 entries, and 36.1
  if own ones count; 33.4 with 4,096 entries, and 22.3 if own ones count; 31.7
  untrained (benchmarks/results/README.md). Batches of 128, as in FedU's code,
  were not measured. Another reproduction (FedSC_ICML2024) also leaves out own
  entries; it has one entry for each image of the others, a temperature of 0.1
  and a fifth of the weight. Use it with `add_to_dictionary` and
  `take_dictionary`.

  Args:
    nets: the encoder's and the predictor's modules.
    view: (images, rng) -> one random view of each image, f32.
    make_tx: round -> the optimiser.
    temperature: the divisor of the similarities.
    queue_size: N, the number of entries of the dictionary.
  """
  def memory(online: Online, rng: Array, image: Array) -> FedCAMemory:
    """Random entries, the same for all clients."""
    z = online_step.embedding(nets, online, image)
    entries = online_step.random_keys(z, rng, queue_size)
    nobody = jnp.zeros(queue_size, jnp.int32)
    return FedCAMemory(Dictionary(entries, nobody), entries, jnp.int32(0))

  def init(client: ClientState, round_: Array) -> FedCAState:
    return FedCAState(
        client.online, client.memory.learner,
        make_tx(round_).init(online_step.params_of(client.online)), round_)

  def step(state: FedCAState, images: Array,
           rng: Array) -> tuple[FedCAState, Metrics]:
    views = online_step.draw_views(nets, view, images, rng)
    known, tag = state.memory.dictionary, state.memory.tag
    tag = jnp.where(tag, tag, jax.random.randint(
        jax.random.fold_in(rng, 2), (), 1, 2**31 - 1, jnp.int32))

    def objective(online):
      z, encoder = networks.forward(
          nets.encoder, online.encoder, jnp.concatenate(views))
      value = nt_xent(*jnp.split(z, 2), temperature=temperature,
                      negatives=known.entries,
                      apart=known.owners != tag).mean()
      return value, (online._replace(encoder=encoder), z[:len(images)])
    value, online, z, opt_state = online_step.descend(
        objective, state.online, state.opt_state, make_tx(state.round))
    keys = jnp.concatenate([unit(z), state.memory.keys])[:queue_size]
    memory = state.memory._replace(keys=keys, tag=tag)
    return (FedCAState(online, memory, opt_state, state.round),
            {'loss': value, 'feature_std': feature_std(z)})

  def final(client: ClientState, state: FedCAState) -> ClientState:
    return client._replace(
        online=state.online,
        memory=client.memory._replace(learner=state.memory))

  return Learner(init, step, final, memory)


def upload_keys(client: ClientState, cohort: int) -> tuple[Online, PyTree,
                                                           Array]:
  """What a client sends: its network, and as many keys as the server keeps.

  Args:
    client: one client.
    cohort: M, how many clients train in a round.

  Returns:
    The online network, the newest keys [N // M, D], and the client's tag [].

  Raises:
    ValueError: there are more clients than entries.
  """
  learner = client.memory.learner
  share = len(learner.keys) // cohort
  if not share:
    raise ValueError(f'a dictionary of {len(learner.keys)} entries has none '
                     f'for each of {cohort} clients: raise queue_size')
  return client.online, learner.keys[:share], learner.tag


def first_dictionary(clients: ClientState) -> Dictionary:
  """The server's memory before the first round: any client's dictionary."""
  return jax.tree.map(lambda x: x[0], clients.memory.learner.dictionary)


def add_to_dictionary(server: ServerState, clients: ClientState) -> ServerState:
  """FedAvg, and the update of the dictionary with the clients' keys.

  The newest N // M keys of each client go in front of the server's entries, and
  the oldest entries drop out. Arguments as in `aggregate`.

  Raises:
    ValueError: there are more clients than entries.
  """
  dictionary = clients.memory.learner.dictionary
  cohort, size = dictionary.entries.shape[:2]
  _, keys, tags = jax.vmap(lambda x: upload_keys(x, cohort))(clients)
  share = keys.shape[1]
  uploads = dictionary._replace(
      entries=keys, owners=jnp.repeat(tags.reshape(-1, 1), share, axis=1))
  left_out = clients.num_examples == 0

  def enqueue(known, uploaded):
    """Puts uploaded [M, share, ...] in front of known [N, ...]; keeps N."""
    kept = known[:cohort * share].reshape(uploaded.shape)
    out = left_out.reshape(-1, *(1,) * known.ndim)
    newest = jnp.where(out, kept, uploaded).reshape(-1, *known.shape[1:])
    return jnp.where(left_out.all(), known,
                     jnp.concatenate([newest, known])[:size])
  memory = jax.tree.map(enqueue, server.memory, uploads)
  return aggregate(server, clients)._replace(memory=memory)


def download_dictionary(server: ServerState) -> tuple[Online, Dictionary]:
  """What a client receives: the online network and the dictionary."""
  return server.online, server.memory


def take_dictionary(client: ClientState, server: ServerState) -> ClientState:
  """Takes the server's encoder, predictor and dictionary."""
  client = global_predictor(client, server)
  learner = client.memory.learner._replace(dictionary=server.memory)
  return client._replace(memory=client.memory._replace(learner=learner))


def check_sizes(config: Mapping[str, Any]) -> None:
  """Checks that the dictionary has an entry for each client that trains.

  Args:
    config: all fields by their dotted names.

  Raises:
    ValueError: it has not.
  """
  size = config['learner.queue_size']
  cohort = config['cohort'] or config['clients']
  if cohort > size:
    raise ValueError(f'config.learner.queue_size is {size}, but {cohort} '
                     'clients train in a round and each adds to the '
                     'dictionary: raise it, or lower cohort')


FEDCA = Method(
    fedca,
    Aggregation(add_to_dictionary, upload=upload_keys, memory=first_dictionary),
    UpdateRule(take_dictionary, download=download_dictionary),
    check=check_sizes)
