"""Partitions: which client owns which example. The config names one.

A partition is `(labels, num_clients, rng, **choices) -> parts`. It takes the
labels [N] of all examples and returns, for each client, an array of example
numbers. The generator is NumPy's legacy RandomState, as in the released code
(EasyFL, simulation.py).
"""

from collections.abc import Callable
import heapq
import math

import numpy as np

from fedu_jax.runtime.errors import BadInput

Parts = list[np.ndarray]


def _equal_parts(index: np.ndarray, count: int,
                 rng: np.random.RandomState) -> Parts:
  """Shuffles and cuts into parts of equal size, up to 1; small ones first."""
  if count < 1:
    raise BadInput(f'there are {count} clients: give at least one')
  index = rng.permutation(index)
  size, large = divmod(len(index), count)
  sizes = [size] * (count - large) + [size + 1] * large
  return np.split(index, np.cumsum(sizes)[:-1])


def iid(labels: np.ndarray, num_clients: int,
        rng: np.random.RandomState) -> Parts:
  """Shuffles all examples and gives each client the same number."""
  return _equal_parts(np.arange(len(labels)), num_clients, rng)


def by_class(labels: np.ndarray, num_clients: int, rng: np.random.RandomState,
             *, classes_per_client: int) -> Parts:
  """Gives each client a few classes, as the released code does.

  Each of C classes is cut into ceil(classes_per_client * K / C) random parts of
  equal size. One client after the other takes a part of each of the classes
  that have the most parts left, lower classes first. With ten classes, five
  clients of two classes have {0, 1}, {2, 3}, ... Only labels that occur count
  as classes, so labels may start at 1 or have gaps. A class with fewer examples
  than parts has empty parts, as in the released code.

  Args:
    labels: [N].
    num_clients: K.
    rng: NumPy's generator.
    classes_per_client: the number of classes of each client.

  Returns:
    For each client, the numbers of its examples.

  Raises:
    BadInput: there are fewer classes than a client needs.
  """
  classes = np.unique(labels)
  num_classes = len(classes)
  if not 1 <= classes_per_client <= num_classes:
    raise BadInput(
        f'partition.classes_per_client is {classes_per_client}, but the data '
        f'has {num_classes} classes: choose 1 to {num_classes}')
  count = math.ceil(classes_per_client * num_clients / num_classes)
  parts = [_equal_parts(np.flatnonzero(labels == c), count, rng)
           for c in classes]
  taken = [(0, c) for c in range(num_classes)]
  clients = []
  for _ in range(num_clients):
    mine = []
    for _ in range(classes_per_client):
      times, c = heapq.heappop(taken)
      mine.append(parts[c][times])
      heapq.heappush(taken, (times + 1, c))
    clients.append(np.concatenate(mine))
  return clients


def dirichlet(labels: np.ndarray, num_clients: int, rng: np.random.RandomState,
              *, alpha: float, min_examples: int = 10,
              max_draws: int = 100) -> Parts:
  """Divides each class over clients by a draw from Dirichlet(alpha).

  A client that already has N / K examples gets none of the next class. The
  whole draw is repeated until every client has `min_examples`, as in the
  released code, but at most `max_draws` times.

  Args:
    labels: [N].
    num_clients: K.
    rng: NumPy's generator.
    alpha: the concentration; a smaller one is more uneven.
    min_examples: the fewest examples of a client.
    max_draws: the number of draws to try.

  Returns:
    For each client, the numbers of its examples.

  Raises:
    BadInput: no draw gave every client enough examples.
  """
  poorest = -1
  for _ in range(max_draws):
    clients = [np.empty(0, int)] * num_clients
    for c in range(int(labels.max()) + 1):
      index = rng.permutation(np.flatnonzero(labels == c))
      hungry = [len(mine) < len(labels) / num_clients for mine in clients]
      share = rng.dirichlet(np.full(num_clients, alpha)) * hungry
      if not share.sum() > 0:
        # With a tiny alpha, all weight can fall on clients that have enough, or
        # underflow to 0. Then the whole draw cannot be used.
        break
      cuts = (np.cumsum(share / share.sum()) * len(index)).astype(int)[:-1]
      clients = [np.concatenate([mine, more]) for mine, more
                 in zip(clients, np.split(index, cuts))]
    else:
      least = min(len(mine) for mine in clients)
      if least >= min_examples:
        return [rng.permutation(mine) for mine in clients]
      poorest = max(poorest, least)
  found = ('no draw was usable' if poorest < 0
           else f'the best left one client with {poorest}')
  raise BadInput(
      f'partition dirichlet(alpha={alpha:g}) found no split of {len(labels)} '
      f'examples over {num_clients} clients with at least {min_examples} each '
      f'in {max_draws} draws ({found}): raise partition.alpha, or lower '
      'clients or partition.min_examples')


def natural(owners: np.ndarray, num_clients: int,
            rng: np.random.RandomState) -> Parts:
  """Gives each client the examples of one owner in the data.

  Raises:
    BadInput: the data has another number of owners than clients.
  """
  del rng  # nothing to draw
  found = int(owners.max()) + 1
  if found != num_clients:
    raise BadInput(f'the data has {found} owners, but clients is '
                   f'{num_clients}: set --config.clients={found}')
  return [np.flatnonzero(owners == i) for i in range(num_clients)]


# config.partition.name -> a function.
PARTITIONS: dict[str, Callable[..., list[np.ndarray]]] = {
    'by_class': by_class,
    'iid': iid,
    'dirichlet': dirichlet,
    'natural': natural,
}
