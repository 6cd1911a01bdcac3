"""Draws experiments again from the files that they ended with: no run."""

from collections.abc import Iterator, Mapping
import pathlib
import tempfile

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import recorded_runs
from fedu_jax.experiments import runner
from fedu_jax.runtime.errors import BadInput


def results(several: Mapping[str, plans.Plan], workdir: pathlib.Path,
            scale: plans.Scale) -> Iterator[tuple[str, list[plans.Result]]]:
  """Reads what the arms of finished experiments gave.

  Arms that were added to a plan later are left out.

  Args:
    several: the experiments, by name.
    workdir: where they were finished: <name>-<scale>/runs.jsonl.gz.
    scale: of all of them.

  Yields:
    The name of each experiment, and one result an arm, in the plan's order. The
    folders of its runs last until the next one is asked for.

  Raises:
    BadInput: a file is absent or damaged, or holds runs that none of the arms
      has now.
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
