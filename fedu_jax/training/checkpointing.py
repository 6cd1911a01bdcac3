"""Resumes a federation from its checkpoints, and saves its rounds."""

from collections.abc import Callable
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from fedu_jax.runtime import metrics_log
from fedu_jax.runtime import multihost
from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime.durable_files import Unwritten
from fedu_jax.runtime.errors import BadInput, Diverged
from fedu_jax.training import round_report
from fedu_jax.training import workdir_lock
from fedu_jax.training.engine.federation import Federation
from fedu_jax.training.engine.federation import Run
from fedu_jax.training.engine.recipe import Recipe


def check_begun(folder: pathlib.Path, own: Checkpoints, store: str,
                recipe: Recipe) -> None:
  """Checks that a resumed federation would not lose earlier rounds.

  Args:
    folder: the workdir of the federation.
    own: its checkpoints.
    store: where its clients are kept now: 'device', 'host' or 'disk'.
    recipe: the recipe of the federation.

  Raises:
    BadInput: clients were in memory before and would now be on disk, or rounds
      are done and there is no checkpoint.
  """
  if own.latest() is not None:
    if store == 'disk' and not workdir_lock.clients_on_disk(folder):
      raise BadInput(
          f'the clients of {folder} are in memory, and half of this host\'s '
          'has no room for them: go on where there is more, or choose another '
          '--workdir, where they will be on disk')
    return
  # A run without a checkpoint cannot have done more rounds than this.
  path = folder / 'metrics.jsonl'
  if (rounds := metrics_log.last(path)) > recipe.checkpoint_every:
    raise BadInput(
        f'{path} tells of {rounds} rounds, and there is no checkpoint: put '
        f'{folder / "checkpoints"} back, or remove that file to begin anew')


def begins(done: int, rounds: int, own: Checkpoints,
           reported: round_report.NoReport) -> str | None:
  """Describes where a federation starts, and which rounds were lost.

  Args:
    done: the completed rounds of the restored state.
    rounds: the number of rounds of the run.
    own: its checkpoints.
    reported: the report with its earlier rounds.

  Returns:
    A line for the console; None for a new run.
  """
  text = ''.join(f'checkpoint {step} is damaged ({wrong}): '
                 for step, wrong in own.damaged.items())
  lost = max([reported.beyond, *own.damaged])
  if done == rounds:
    text += f'all {done} rounds are done; evaluating'
  elif done or lost:
    text += f'going on after round {done} of {rounds}'
  if lost > done:
    text += f'; what was done up to round {lost} is done again'
  if reported.missing:
    text += f'; metrics.jsonl is damaged, and lacks {reported.missing} rounds'
  return text or None


def save(federation: Federation, i: int, own: Checkpoints,
         settle: Callable[[], None]) -> Unwritten | None:
  """Saves a federation after its newest round.

  Args:
    federation: the federation, or several.
    i: the number of the one to save.
    own: its checkpoints.
    settle: returns when the rows of all rounds are on disk. The checkpoint is
      saved after that, so that no saved round lacks its row.

  Returns:
    The failure if it could not be saved, else None.

  Raises:
    Diverged: no run can go on from the server's state.
  """
  done = federation.done
  try:
    run = federation.state(i)  # writes the clients, if they are kept on disk
    _check_server(run, own)
    multihost.together(settle)
    own.save(done, run, federation.files())
  except OSError as error:
    before = own.latest()
    return Unwritten(
        f'checkpoint of round {done} could not be saved', error,
        'there is none yet' if before is None
        else f'that of round {before} stays')
  federation.keep_from(own.oldest())
  return None


def _check_server(run: Run, own: Checkpoints) -> None:
  """Raises Diverged if the server's numbers are not finite.

  Uploads are finite (see `core.rounds`), but a researcher's own aggregation may
  return other numbers.
  """
  server = jax.device_get(multihost.own_copy(run.server))
  if not all(np.isfinite(x).all() for x in jax.tree.leaves(server)
             if jnp.issubdtype(x.dtype, jnp.inexact)):
    raise Diverged(
        f'after round {int(server.round)} what the server has is not finite, '
        'though it leaves out what is not: it is not saved, and the newest '
        f'checkpoint is of round {own.latest() or 0}; choose another '
        'config.aggregation and --workdir')
