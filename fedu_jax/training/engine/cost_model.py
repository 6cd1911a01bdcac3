"""Formulas for the bytes and seconds of a round.

Bytes of arrays are exact. Seconds are a model: work divided by a rate.
`benchmarks/SCALING.md` explains the formulas and compares them with
measurements.
"""

import math
from typing import Any, NamedTuple

import jax

ROUND, ALL_ROUNDS = 'a round', 'all rounds'  # sums of other lines


class Sizes(NamedTuple):
  """The sizes that the costs of a federation depend on; S to D in bytes."""
  clients: int  # K
  cohort: int  # M, clients that train in a round
  groups: int  # n, groups of devices
  group: int  # g, devices of a group; they share each batch of a client
  share: int  # clients of a cohort that a group trains in a round
  at_once: int  # m, clients that are on a group's devices at once
  store: str  # device, host or disk: where clients are kept
  state: int  # S, a client's networks
  upload: int  # U, what a client sends
  download: int  # V, what a client receives
  network: int  # O, the online network
  server: int  # J, the server's state
  images: int  # D, a client's images, padded to the largest client
  data: int  # bytes of all images
  images_trained: float  # images that a group trains on in a round
  steps: float  # steps of a group in a round
  rounds: int
  checkpoints: int  # c, checkpoints that are kept
  every: int  # rounds between checkpoints
  batch: int = 0  # bytes of the images of a step
  # Bytes of a chunk of a client's images; 0 if they are on a device as a whole.
  chunk: int = 0

  @property
  def chunk_steps(self) -> int:
    """The steps of a chunk of a client's images; 0 if there are no chunks."""
    return self.chunk and self.chunk // self.batch

  @property
  def runs(self) -> int:
    """How often a round runs its program: once a slice, or once a chunk."""
    if self.chunk:
      return max(1, math.ceil(self.steps / self.chunk_steps))
    return -(-self.share // self.at_once)


class Rates(NamedTuple):
  """Rates in operations or bytes a second."""
  compute: float  # R, operations of a device
  link: float  # L, bytes between the host, or its disk, and its devices
  network: float  # N, bytes between devices
  uplink: float  # P, bytes that a real client sends


class Line(NamedTuple):
  """One line of a plan: a name, a number, and its formula."""
  what: str
  value: float
  how: str


def peak_memory(compiled: jax.stages.Compiled) -> int:
  """Bytes that a program needs on a device: arguments, results, temporaries."""
  found: Any = compiled.memory_analysis()
  return (found.argument_size_in_bytes + found.output_size_in_bytes
          - found.alias_size_in_bytes + found.temp_size_in_bytes)


def arguments(compiled: jax.stages.Compiled) -> int:
  """Bytes of a program's arguments on a device."""
  found: Any = compiled.memory_analysis()
  return found.argument_size_in_bytes


def program_at_least(sizes: Sizes) -> int:
  """Bytes that a round's program needs on a device, without temporaries.

  These are the server, the clients with their images, and, for the clients that
  train, new states and uploads. A cohort that is drawn from clients on the
  device is copied, with its images. The program of a chunk has the state of
  one client.
  """
  if sizes.chunk:
    return sizes.state + sizes.chunk
  drawn = sizes.store == 'device' and sizes.cohort < sizes.clients
  copied = sizes.at_once * (sizes.state + sizes.images) if drawn else 0
  return (sizes.server + copied + sizes.at_once * (sizes.state + sizes.upload)
          + (sizes.clients if drawn else sizes.at_once)
          * (sizes.state + sizes.images))


def device_memory(sizes: Sizes, program: int = 0) -> Line:
  """The memory of a device while a round runs.

  Besides the program there is the server's first network, which is scored at
  the end. If clients are streamed, the next ones are already on the device. If
  images come in chunks, so is the next chunk; and the program has neither the
  server nor the client before its training and the clients before and after it.

  Args:
    sizes: the federation.
    program: the `peak_memory` of the round's program; 0 before it is compiled,
      for `program_at_least`.
  """
  if not program:
    line = device_memory(sizes, program_at_least(sizes))
    return line._replace(how='at least, before working memory')
  if sizes.chunk:
    return Line('memory of a device', program + sizes.network + sizes.server
                + sizes.upload + 3 * sizes.state + sizes.chunk,
                "a chunk's program, O, J, U, 3 S and a chunk")
  if sizes.store == 'device':
    return Line('memory of a device', program + sizes.network,
                "the round's program, and O")
  return Line('memory of a device', program + sizes.network
              + sizes.at_once * (sizes.state + sizes.images),
              "the round's program, O and m (S + D)")


def host_memory(sizes: Sizes) -> Line:
  """The memory of the host, without Python, JAX and the compiler."""
  slice_ = sizes.groups * sizes.at_once
  if sizes.store == 'device':
    # Images are stacked once; states are copied for each checkpoint.
    return Line('memory of the host', sizes.data + sizes.clients * max(
        sizes.images, sizes.state), 'all images + K max(S, D)')
  moved = slice_ * (2 * sizes.state + (2 * sizes.chunk or sizes.images))
  how = 'n (2 S + 2 chunks)' if sizes.chunk else 'n m (2 S + D)'
  if sizes.store == 'disk':
    return Line('memory of the host', sizes.data + moved, f'all images + {how}')
  return Line('memory of the host',
              sizes.data + sizes.clients * sizes.state + moved,
              f'all images + K S + {how}')


def saved(sizes: Sizes) -> int:
  """Bytes of a checkpoint, before compression."""
  if sizes.store == 'disk':
    return sizes.server + 4 * sizes.clients  # the last round of each client
  return sizes.server + sizes.clients * sizes.state


def disk(sizes: Sizes) -> Line:
  """The space of checkpoints, before compression, and of clients' files."""
  keep = min(sizes.checkpoints, -(-sizes.rounds // sizes.every))
  if sizes.store == 'disk':
    # Each client's last file, and files that a checkpoint names.
    files = min(sizes.clients + keep * sizes.every * sizes.cohort,
                sizes.rounds * sizes.cohort)
    return Line('disk', keep * saved(sizes) + files * sizes.state,
                'c J + S for each file of a client')
  return Line('disk', keep * saved(sizes),
              'c (J + K S), once more while saving')


def traffic(sizes: Sizes, *, in_sums: bool = True) -> list[Line]:
  """The traffic of a round, in bytes.

  Args:
    sizes: the federation.
    in_sums: whether the aggregation needs only sums, so that a device sends a
      sum and not all uploads of its clients.
  """
  n, moved, come = sizes.groups, 0.0, 'M (2 S + D)'
  if sizes.chunk:
    moved = 2 * sizes.cohort * sizes.state + n * sizes.steps * sizes.batch
    come = '2 M S, and the images of each step'
  elif sizes.store != 'device':
    moved = sizes.cohort * (2 * sizes.state + sizes.images)
  if in_sums:
    slices = -(-sizes.share // sizes.at_once)
    reduced = slices * 2 * (n - 1) / n * sizes.upload
    how = '2 (n - 1) / n U a slice, in a ring'
  else:
    reduced = (n - 1) * sizes.share * sizes.state
    how = '(n - 1) M / n S at most: all uploads are gathered'
  return [
      Line('from the server to clients', sizes.cohort * sizes.download, 'M V'),
      Line('from clients to the server', sizes.cohort * sizes.upload, 'M U'),
      Line('all-reduce, from each device', reduced, how),
      Line('from the store and back', moved, come),
      Line('shared batches, from each device',
           2 * (sizes.group - 1) / sizes.group * sizes.steps * sizes.network,
           '2 (g - 1) / g O a step')]


def seconds(sizes: Sizes, rates: Rates, per_image: float,
            sent: list[Line]) -> list[Line]:
  """The time of a round, in seconds, without lines of 0.

  Clients are moved while others train, so the longer of both times counts.

  Args:
    sizes: the federation.
    rates: the rates of the devices.
    per_image: the operations of a step for one image.
    sent: the result of `traffic`.
  """
  _, _, reduced, moved, shared = (line.value for line in sent)
  rows = [
      Line('training', sizes.images_trained * per_image
           / (sizes.group * rates.compute), 'images F / (g R)'),
      Line('all-reduce', reduced / rates.network, 'bytes / N'),
      Line('shared batches', shared / rates.network, 'bytes / N'),
      Line('clients come and go', moved / rates.link,
           'bytes / L, while others train'),
      # Files of clients on disk are written when clients come back.
      Line('a share of a checkpoint', saved(sizes) / sizes.every / rates.link,
           '(J + K S) / L, every some rounds')]
  training, reduce_, share, move, save = (row.value for row in rows)
  total = max(training + share, move) + reduce_ + save
  return [row for row in rows if row.value] + [
      Line(ROUND, total, 'training or moving, and the rest'),
      Line(ALL_ROUNDS, sizes.rounds * total, 'without scores')]


def deployed(sizes: Sizes, rates: Rates) -> list[Line]:
  """The seconds that a round would take in addition with real clients."""
  return [
      Line('a client uploads', sizes.upload / rates.uplink, 'U / P'),
      Line('the server takes in all uploads', sizes.cohort * sizes.upload
           / rates.network, 'M U / N')]


def exceeded(line: Line, limit: float) -> list[str]:
  """Returns a text on a memory that is too small; an empty list if it fits."""
  return [f'{line.what} ({of_bytes(line.value)} of {of_bytes(limit)})'
          ] if line.value > limit else []


def longest(lines: list[Line]) -> str:
  """Names the line with the longest time."""
  line = max(lines, key=lambda line: line.value)
  return f'{line.what} ({of_seconds(line.value)})'


def of_bytes(count: float) -> str:
  """Formats a number of bytes: 1.20 MB."""
  return _scaled(count, 'B')


def of_seconds(count: float) -> str:
  """Formats a time: 12.4 ns, 24.8 ms, 3.1 s, 4.5 min, 2.5 h, 3.5 days."""
  for unit, size in (('days', 86400.0), ('h', 3600.0), ('min', 60.0)):
    if count >= 2 * size:
      return f'{count / size:.3g} {unit}'
  for unit, size in (('s', 1.0), ('ms', 1e-3), ('us', 1e-6)):
    if count >= 0.9995 * size:  # rounds to 1 of this unit
      return f'{count / size:.3g} {unit}'
  return f'{count / 1e-9:.3g} ns' if count else '0 s'


def of_operations(count: float) -> str:
  """Formats a number of operations: 1.20 GFLOP."""
  return _scaled(count, 'FLOP')


def _scaled(count: float, unit: str) -> str:
  power = 0
  while count >= 1000 and power < 5:
    count, power = count / 1000, power + 1
  return f'{count:.3g} {" kMGTP"[power].strip()}{unit}'
