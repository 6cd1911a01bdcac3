"""The end of a run, down to the bit, and the difference of two ends."""

import json
import pathlib
from typing import Any

from flax import serialization
import jax
import numpy as np

from fedu_jax.runtime import checkpoint
from fedu_jax.runtime import durable_files
from fedu_jax.training import round_report


def of(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns all results of a run that do not depend on the clock, by name."""
  state = _state(workdir)
  steps = sorted(x.name for x in (workdir / 'checkpoints').iterdir())
  found: dict[str, Any] = {'steps': steps}
  for path, x in jax.tree_util.tree_leaves_with_path(state):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.random.key_data(x)
    found['state' + jax.tree_util.keystr(path)] = (
        x.dtype.name, x.shape, np.asarray(x).tobytes())
  clients = (workdir / 'clients').glob('*/*')
  newest = {}  # of each client, whose state a checkpoint does not hold itself
  for file in sorted(clients, key=lambda x: int(x.stem.split('-')[1])):
    newest[file.stem.split('-')[0]] = file
  for client, file in newest.items():
    found[f'client {client}'] = file.name, file.read_bytes()
  found['metrics.jsonl'] = rows(workdir)
  for name in ('summary.json', 'partition.json', 'config.json',
               'images.json'):
    found[name] = json.loads((workdir / name).read_text())
  found['summary.json'] = _timeless(found['summary.json'])
  return found


def networks(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the server and the clients at the end, from any store, by name.

  Only clients that have trained, in their order, [count, ...] each.
  """
  state = _state(workdir)
  clients = state['clients']
  if not isinstance(clients, dict):  # the rounds in which they trained last
    last = np.asarray(clients)
    clients = jax.tree.map(lambda *x: np.stack(x), *(
        serialization.msgpack_restore(durable_files.unsealed(next(
            (workdir / 'clients').glob(f'*/{i}-{last[i]}.msgpack'))))
        for i in np.flatnonzero(last >= 0)))
  else:
    # Whom a number of devices is padded with have no examples.
    trained = (np.asarray(clients['last_round']) >= 0) & (
        np.asarray(clients['num_examples']) > 0)
    clients = jax.tree.map(lambda x: np.asarray(x)[trained], clients)
  return {jax.tree_util.keystr(path): np.asarray(x) for path, x in
          jax.tree_util.tree_leaves_with_path(
              {'server': state['server'], 'clients': clients})}


def difference(mine: dict[str, Any], other: dict[str, Any]) -> str:
  """Returns where two ends first differ; '' if they do not."""
  for name in sorted(mine.keys() | other.keys()):
    if mine.get(name) != other.get(name):
      return f'{name} differs'
  return ''


def saved(workdir: pathlib.Path) -> int | None:
  """The rounds of the newest sound checkpoint."""
  found = checkpoint.Checkpoints(workdir / 'checkpoints', keep=1)
  found.close()
  return found.latest()


def rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of `metrics.jsonl` without the clock."""
  text = (workdir / 'metrics.jsonl').read_text()
  return [_timeless(json.loads(line)) for line in text.splitlines()]


def lines(workdir: pathlib.Path) -> int:
  """Returns the number of rounds in `metrics.jsonl`."""
  return (workdir / 'metrics.jsonl').read_bytes().count(b'\n')


def _state(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the state of the newest sound checkpoint."""
  found = checkpoint.Checkpoints(workdir / 'checkpoints', keep=1)
  state = found.restore_plain()
  found.close()
  assert state
  return state


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
  return {name: x for name, x in row.items() if name not in round_report.CLOCK}
