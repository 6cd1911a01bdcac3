"""The arithmetic of a round: its bytes and seconds.

Exact where it counts bytes of arrays; a model where it divides by a rate.
`benchmarks/SCALING.md` explains the formulas and compares them with what was
measured.
"""

from typing import Any, NamedTuple

import jax

ROUND, ALL_ROUNDS = 'a round', 'all rounds'  # sums of other lines


class Sizes(NamedTuple):
  """A federation, as far as its costs depend on it; sizes in bytes."""
  clients: int  # K
  cohort: int  # M, that train in a round
  groups: int  # n, of devices that train together
  group: int  # g, devices of a group, which share a client's batches
  share: int  # clients of a cohort that a group trains in a round
  at_once: int  # those that lie on a group's devices together
  store: str  # device, host or disk: where the others lie
  state: int  # S, of a client
  upload: int  # U, that a client sends
  download: int  # V, that it receives
  network: int  # O, the online network
  server: int  # J
  images: int  # D, of a client, padded to the largest
  data: int  # of all images
  images_trained: float  # that a group trains on in a round
  steps: float  # that it makes in a round
  rounds: int
  checkpoints: int  # c, that are kept
  every: int  # rounds between them


class Rates(NamedTuple):
  """How fast things are, in operations or bytes a second."""
  compute: float  # R, of a device
  link: float  # L, between the host and its devices, or the disk
  network: float  # N, between devices
  uplink: float  # P, of a client that is a real one


class Line(NamedTuple):
  """One figure: what it is of, and how it comes about."""
  what: str
  value: float
  how: str


def peak_memory(compiled: jax.stages.Compiled) -> int:
  """Bytes that a program holds at once: arguments, results and its own.

  On each device, where it runs on several.
  """
  found: Any = compiled.memory_analysis()
  return (found.argument_size_in_bytes + found.output_size_in_bytes
          - found.alias_size_in_bytes + found.temp_size_in_bytes)


def arguments(compiled: jax.stages.Compiled) -> int:
  """Bytes of a program's arguments on a device."""
  found: Any = compiled.memory_analysis()
  return found.argument_size_in_bytes


def program_at_least(sizes: Sizes) -> int:
  """Bytes that a round's program holds on a device, but the working memory.

  The server, and the clients with their images; of those that train, new states
  as well, which are written beside the old ones, and uploads. A cohort drawn
  from clients on the device is copied, with its images.
  """
  drawn = sizes.store == 'device' and sizes.cohort < sizes.clients
  copied = sizes.at_once * (sizes.state + sizes.images) if drawn else 0
  return (sizes.server + copied + sizes.at_once * (sizes.state + sizes.upload)
          + (sizes.clients if drawn else sizes.at_once)
          * (sizes.state + sizes.images))


def device_memory(sizes: Sizes, program: int = 0) -> Line:
  """What a device holds while a round's program, of so many bytes, runs.

  The network that the server sent out first stays, to be scored; of clients in
  a store, those that come next are there already.

  Args:
    sizes: the federation.
    program: what `peak_memory` says of it; 0: `program_at_least`, before the
      program is compiled.
  """
  if not program:
    line = device_memory(sizes, program_at_least(sizes))
    return line._replace(how='at least, before working memory')
  if sizes.store == 'device':
    return Line('memory of a device', program + sizes.network,
                "the round's program, and O")
  return Line('memory of a device', program + sizes.network
              + sizes.at_once * (sizes.state + sizes.images),
              "the round's program, O and m (S + D)")


def host_memory(sizes: Sizes) -> Line:
  """What the host holds, beside Python, JAX and the compiler."""
  slice_ = sizes.groups * sizes.at_once
  if sizes.store == 'device':
    # Stacked once before the first round; copied for each checkpoint.
    return Line('memory of the host', sizes.data + sizes.clients * max(
        sizes.images, sizes.state), 'all images + K max(S, D)')
  moved = slice_ * (2 * sizes.state + sizes.images)
  if sizes.store == 'disk':
    return Line('memory of the host', sizes.data + moved,
                'all images + n m (2 S + D)')
  return Line('memory of the host',
              sizes.data + sizes.clients * sizes.state + moved,
              'all images + K S + n m (2 S + D)')


def saved(sizes: Sizes) -> int:
  """Bytes of a checkpoint, before compression."""
  if sizes.store == 'disk':
    return sizes.server + 4 * sizes.clients  # when each last trained
  return sizes.server + sizes.clients * sizes.state


def disk(sizes: Sizes) -> Line:
  """What checkpoints take, before compression, and the clients' files."""
  keep = min(sizes.checkpoints, -(-sizes.rounds // sizes.every))
  if sizes.store == 'disk':
    # Files stay that a checkpoint names, besides each client's last.
    files = min(sizes.clients + keep * sizes.every * sizes.cohort,
                sizes.rounds * sizes.cohort)
    return Line('disk', keep * saved(sizes) + files * sizes.state,
                'c J + S for each file of a client')
  return Line('disk', keep * saved(sizes),
              'c (J + K S), once more while saving')


def traffic(sizes: Sizes, *, in_sums: bool = True) -> list[Line]:
  """What a round sends, in bytes.

  Args:
    sizes: the federation.
    in_sums: whether the aggregation is of sums, so that a device sends one and
      not its clients' uploads.
  """
  n, moved = sizes.groups, 0
  if sizes.store != 'device':
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
      Line('from the store and back', moved, 'M (2 S + D)'),
      Line('shared batches, from each device',
           2 * (sizes.group - 1) / sizes.group * sizes.steps * sizes.network,
           '2 (g - 1) / g O a step')]


def seconds(sizes: Sizes, rates: Rates, per_image: float,
            sent: list[Line]) -> list[Line]:
  """What a round takes here, in seconds; what takes none is left out.

  Clients come and go while others train, so that of both times the longer one
  counts.

  Args:
    sizes: the federation.
    rates: of the devices.
    per_image: operations of a step, for one image.
    sent: what `traffic` returns.
  """
  _, _, reduced, moved, shared = (line.value for line in sent)
  rows = [
      Line('training', sizes.images_trained * per_image
           / (sizes.group * rates.compute), 'images F / (g R)'),
      Line('all-reduce', reduced / rates.network, 'bytes / N'),
      Line('shared batches', shared / rates.network, 'bytes / N'),
      Line('clients come and go', moved / rates.link,
           'bytes / L, while others train'),
      # Files of clients that are on disk are written as they come back.
      Line('a share of a checkpoint', saved(sizes) / sizes.every / rates.link,
           '(J + K S) / L, every some rounds')]
  training, reduce_, share, move, save = (row.value for row in rows)
  total = max(training + share, move) + reduce_ + save
  return [row for row in rows if row.value] + [
      Line(ROUND, total, 'training or moving, and the rest'),
      Line(ALL_ROUNDS, sizes.rounds * total, 'without scores')]


def deployed(sizes: Sizes, rates: Rates) -> list[Line]:
  """What a round would add in seconds if clients were elsewhere, for real."""
  return [
      Line('a client uploads', sizes.upload / rates.uplink, 'U / P'),
      Line('the server takes in all uploads', sizes.cohort * sizes.upload
           / rates.network, 'M U / N')]


def exceeded(line: Line, limit: float) -> list[str]:
  """Says that a memory does not suffice, if it does not."""
  return [f'{line.what} ({of_bytes(line.value)} of {of_bytes(limit)})'
          ] if line.value > limit else []


def longest(lines: list[Line]) -> str:
  """Names the line that takes longest."""
  line = max(lines, key=lambda line: line.value)
  return f'{line.what} ({of_seconds(line.value)})'


def of_bytes(count: float) -> str:
  """Formats a number of bytes: 1.20 MB."""
  return _scaled(count, 'B')


def of_seconds(count: float) -> str:
  """Formats a time: 24.8 ms, 3.1 s, 4.5 min, 2.5 h, 3.5 days."""
  for unit, size in (('days', 86400), ('h', 3600), ('min', 60)):
    if count >= 2 * size:
      return f'{count / size:.3g} {unit}'
  return f'{count:.3g} s' if count >= 1 else f'{1e3 * count:.3g} ms'


def of_operations(count: float) -> str:
  """Formats a number of operations: 1.20 GFLOP."""
  return _scaled(count, 'FLOP')


def _scaled(count: float, unit: str) -> str:
  power = 0
  while count >= 1000 and power < 5:
    count, power = count / 1000, power + 1
  return f'{count:.3g} {" kMGTP"[power].strip()}{unit}'
