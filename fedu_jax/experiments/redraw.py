"""Reads finished experiments from their files, to draw them without a run."""

from collections.abc import Iterator, Mapping
import pathlib
import tempfile

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import recorded_runs
from fedu_jax.experiments import runner
from fedu_jax.runtime.errors import BadInput


def results(several: Mapping[str, plans.Plan], workdir: pathlib.Path,
            scale: plans.Scale) -> Iterator[tuple[str, list[plans.Result]]]:
  """Reads the results of finished experiments.

  Arms that were added to a plan later are left out.

  Args:
    several: the experiments, by name.
    workdir: the folder with <name>-<scale>/runs.jsonl.gz.
    scale: the scale of all of them.

  Yields:
    The name of each experiment, and a result for each arm, in the plan's order.
    The folders of its runs exist until the next experiment is read.

  Raises:
    BadInput: a file is missing or damaged, or it has runs of no current arm.
  """
  for name, plan in several.items():
    path = workdir / f'{name}-{scale.name}' / recorded_runs.FILE
    recorded = recorded_runs.read(path)
    with tempfile.TemporaryDirectory(prefix='fedu-redraw-') as folder:
      runs = pathlib.Path(folder)
      recorded_runs.unpack(recorded, runs)
      found = runner.finished(plan, runs, int(recorded.about['seeds']))
      drawn = {run.name for result in found for run in result.folders}
      if other := sorted(recorded.runs.keys() - drawn):
        raise BadInput(
            f'{path} holds {len(other)} runs of settings that {name} at scale '
            f'{scale.name} no longer has ({other[0]}): draw it with the '
            'version that wrote it')
      yield name, found
