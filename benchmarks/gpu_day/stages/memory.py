"""The paper's round: the memory that was foreseen, what it used, its time."""

import pathlib
import tempfile
import time
from typing import Any

import jax

from benchmarks.gpu_day import commands
from benchmarks.gpu_day import federations
from benchmarks.gpu_day.worker import Work
from fedu_jax.runtime import prng
from fedu_jax.training import prepare
from fedu_jax.training.engine import cost_model


@prng.fixed()
def run(work: Work) -> None:
  """Writes a row when the round is compiled, and one when it has run."""
  federations.wait_for(work.data, work.left())
  # The schedule is a constant of the program, which the paper's run then finds
  # among the compiled ones.
  rounds = min(work.sizes.rounds,
               commands.planned_rounds(work.seconds, work.records))
  config = federations.config_of(work.data, work.sizes.paper
                                 | {'rounds': rounds})
  data = prepare.data_of(config)
  with tempfile.TemporaryDirectory() as folder:
    federation, where = federations.make(config, pathlib.Path(folder), data)
    began = time.perf_counter()
    federation.compile()
    compiled = time.perf_counter() - began
    program = cost_model.peak_memory(federation.compiled)
    facts: dict[str, Any] = dict(
        rounds=rounds, compile_seconds=compiled, program_bytes=program,
        planned_bytes=cost_model.device_memory(where.sizes, program).value)
    work.records.add('row', name='foreseen', **facts)
    seconds = []
    for _ in range(2):
      began = time.perf_counter()
      federation.advance()
      seconds.append(time.perf_counter() - began)
      if work.left() < 2 * seconds[-1]:
        break
  used = jax.devices()[0].memory_stats() or {}
  # The first round may allocate memory, so the last one counts.
  work.records.add('row', name='round', round_seconds=seconds[-1],
                   seconds=seconds, used_bytes=used.get('peak_bytes_in_use'),
                   images=int(where.sizes.images_trained), **facts)
