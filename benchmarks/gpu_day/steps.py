"""Variants of the training step that are timed in turns, ours and PyTorch's."""

import argparse
from collections.abc import Callable
import importlib.util
import multiprocessing
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peer_bench
from benchmarks.gpu_day.worker import Work
from benchmarks.lib import timing
from benchmarks.lib import workload
from fedu_jax.core.precision import computed_in
from fedu_jax.core.state import Array
from fedu_jax.training.engine import cost_model

CLIENTS = 5  # of a round in the paper
_NO_TIME = 'not ready in time'
_MARGIN = 10.0  # seconds that stay for the timing itself


class Variant(NamedTuple):
  """A compiled run of steps.

  Attributes:
    run: runs all steps once.
    images: images of one run.
    operations: floating-point operations of the products for one image.
    facts: what else the records say of it.
  """
  run: Callable[[], Any]
  images: int
  operations: float
  facts: dict[str, Any]


def arguments(work: Work, dtype: str, peer: str = 'eager'
              ) -> argparse.Namespace:
  """Returns the flags of the other benchmarks for these sizes."""
  return argparse.Namespace(**work.sizes.network, dtype=dtype, peer=peer,
                            steps=work.sizes.steps)


def ours(work: Work, dtype: str = 'bfloat16', *, random_views: bool = False,
         execution: str = '', precision: str = 'default',
         online: Any = None) -> Variant:
  """Compiles a scan of steps of one client, or of five.

  Args:
    work: the stage.
    dtype: the dtype of the networks' products.
    random_views: whether views are drawn, and not only tinted.
    execution: 'map' or 'vmap' for five clients; '' for one.
    precision: as config.model.precision.
    online: the first network; None to draw it.
  """
  args = arguments(work, dtype)
  made = (workload.make(args) if random_views
          else workload.make(args, view=peer_bench.tinted))
  first = workload.start(made, online)
  images, rngs = workload.batches(args)
  fn: Callable[..., Any] = lambda *x: workload.steps(made, *x)
  given = first, images, rngs
  if execution:
    given = jax.tree.map(lambda x: jnp.stack([x] * CLIENTS), given)
    fn = workload.clients(made, execution)
  began = time.perf_counter()
  program = workload.compiled(computed_in(precision, fn), *given)
  facts = {'compile_seconds': time.perf_counter() - began,
           'peak_bytes': cost_model.peak_memory(program)}
  return Variant(workload.repeated(program, *given),
                 args.steps * args.batch * (CLIENTS if execution else 1),
                 workload.operations(made, args), facts)


def compile_in_time(work: Work, makers: dict[str, Callable[[], Variant]]
                    ) -> dict[str, Variant]:
  """Compiles variants in order, as long as there is time for the next one."""
  made: dict[str, Variant] = {}
  longest = 0.0
  for name, make in makers.items():
    if work.left() < longest + _MARGIN:
      work.records.add('row', name=name, why=_NO_TIME)
      continue
    began = time.perf_counter()
    try:
      made[name] = make()
    except Exception as error:  # out of memory, say; the others still count
      work.records.add('row', name=name, why=' '.join(
          f'{type(error).__name__}: {error}'.split())[:300])
    longest = max(longest, time.perf_counter() - began)
  return made


def time_in_turns(work: Work, variants: dict[str, Variant]) -> None:
  """Times variants in turns, and writes a row for each."""
  peak = work.records.row('peaks', 'bfloat16').get('median')
  seconds = timing.interleave({name: x.run for name, x in variants.items()},
                              work.sizes.repetitions)
  for name, each in seconds.items():
    images, operations = variants[name].images, variants[name].operations
    rate = images / statistics.median(each)
    work.records.add(
        'row', name=name, seconds=each, images=images, images_per_second=rate,
        operations_per_second=rate * operations, **variants[name].facts,
        **({'of_bfloat16_peak': rate * operations / peak} if peak else {}))


class Peer:
  """PyTorch's step in a process of its own."""

  def __init__(self, work: Work, args: argparse.Namespace,
               views: list[Any]):
    """Starts the process, which compiles while we do.

    Args:
      work: the stage.
      args: the flags, with the kind of peer.
      views: the views of each step, as `peer_bench.views` returns them.
    """
    self._work, self.args = work, args
    made = workload.make(args, view=peer_bench.tinted)
    from benchmarks.lib import torch_peer
    context = multiprocessing.get_context('spawn')
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(
        target=torch_peer.serve, daemon=True, args=(
            theirs, args, views, made.config.optimizer.learning_rate,
            made.config.learner.decay))
    self._process.start()
    self._pipe.send('channels_last')

  def first_loss(self) -> float | None:
    """Returns the loss of its first step; None if it is not ready in time."""
    while not self._pipe.poll(0.2):
      if not self._process.is_alive() or self._work.left() < _MARGIN:
        return None
    return float(self._pipe.recv()[0])

  def variant(self, ours: Variant, facts: dict[str, Any]) -> Variant:
    """Returns its steps as a variant with the work of ours."""
    def run():
      self._pipe.send('time')
      while not self._pipe.poll(1):
        if not self._process.is_alive():
          raise RuntimeError("PyTorch's process died")
      return self._pipe.recv()
    return Variant(run, ours.images, ours.operations, facts)

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.join()


def peers(work: Work, dtype: str, kinds: list[str]) -> tuple[
    dict[str, Peer], Any]:
  """Starts PyTorch's step in these kinds.

  Returns:
    The peers, and their first network for ours; both empty without PyTorch,
    which a row then says.
  """
  if not importlib.util.find_spec('torch'):
    work.records.add('row', name='PyTorch', why='PyTorch is absent')
    return {}, None
  from benchmarks.lib import torch_peer
  from tests.helpers import torch_weights
  args = arguments(work, dtype)
  images, rngs = workload.batches(args)
  views = peer_bench.views(images, rngs)
  return ({f'PyTorch, {kind}, {dtype}': Peer(
      work, arguments(work, dtype, kind), views) for kind in kinds},
          torch_weights.online_from(*torch_peer.nets(args)))


def ready(work: Work, peers: dict[str, Peer], ours: Variant,
          loss: float | None) -> dict[str, Variant]:
  """Returns the peers that are ready in time, after a look at their loss."""
  found = {}
  for name, peer in peers.items():
    theirs = peer.first_loss()
    if theirs is None:
      work.records.add('row', name=name, why=_NO_TIME)
      continue
    found[name] = peer.variant(ours, {'first_loss': theirs,
                                      'our_first_loss': loss})
  return found


def all_ready(work: Work) -> None:
  """Checks that no variant was left out, so that a later call need not run it.

  Raises:
    TimeoutError: there was no time for one.
  """
  missing = [row['name'] for row in work.records.rows(work.records.stage)
             if row.get('why') == _NO_TIME]
  if missing:
    raise TimeoutError(f'left out: {", ".join(missing)}')


def first_loss(run: Callable[[], Array]) -> float:
  """Runs all steps, and returns the loss of the first one."""
  return float(np.asarray(run())[0])
