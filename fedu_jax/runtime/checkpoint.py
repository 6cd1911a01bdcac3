"""Saves and restores the whole state through Orbax, and checks for damage.

A checkpoint is a folder named after the number of completed rounds. It holds
Orbax's files and a manifest of their checksums. A new checkpoint gets its name
when all of it is on disk, and loses it before it is removed. Therefore a killed
process leaves no incomplete checkpoint.
"""

from collections.abc import Callable, Sequence
import contextlib
import functools
import json
import operator
import os
import pathlib
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from fedu_jax.runtime import durable_files
from fedu_jax.runtime import multihost
from fedu_jax.runtime import quiet_threads
from fedu_jax.runtime.errors import BadInput

PyTree = Any  # a tree of arrays, as JAX defines it

_STATE, _MANIFEST = 'default', 'manifest.json'  # the first is Orbax's own name


class Checkpoints:
  """The checkpoints of one run, numbered by completed rounds.

  A run resumes from the newest sound checkpoint. Newer damaged ones stay until
  the run has saved another.

  Attributes:
    damaged: the newer damaged checkpoints, and what is wrong with each.
  """

  def __init__(self, folder: pathlib.Path, *, keep: int):
    """Finds the newest sound checkpoint; changes nothing on disk.

    Args:
      folder: the folder of the checkpoints, created by the first save.
      keep: the number of sound checkpoints that stay.

    Raises:
      BadInput: there are checkpoints, and none is sound.
    """
    self._folder, self._keep = folder.absolute(), keep
    self._handler = ocp.StandardCheckpointHandler()
    self.damaged: dict[int, str] = {}
    found = self._newest_sound() if multihost.first() else -1
    self._latest = multihost.of_first(found)

  def _newest_sound(self) -> int:
    """The completed rounds of the newest sound one; -1 without any."""
    steps = self._steps()
    for step in reversed(steps):
      try:
        self._verify(step)
        return step
      except durable_files.Damaged as error:
        self.damaged[step] = str(error)
    if steps:
      raise BadInput(
          f'{self._folder} holds no checkpoint that is sound '
          f'({"; ".join(self.damaged.values())}): put copies of them back, or '
          'choose another --workdir')
    return -1

  def _verify(self, step: int) -> None:
    folder = self._folder / str(step)
    path = folder / _MANIFEST
    try:
      manifest = json.loads(durable_files.unsealed(path))
      named, sealed = manifest['files'].items(), manifest['sealed']
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise durable_files.Damaged(f'{path} is of another version') from error
    for name, wanted in named:
      if durable_files.digest(folder / name) != wanted:
        raise durable_files.Damaged(f'{folder / name} is not as it was written')
    for name in sealed:
      durable_files.unsealed(self._folder.parent / name)

  def _steps(self) -> list[int]:
    """The completed rounds of all checkpoints, damaged too, ascending."""
    try:
      return sorted(int(path.name) for path in self._folder.iterdir()
                    if path.name.isdecimal())
    except FileNotFoundError:
      return []
    except OSError as error:
      raise BadInput(f'{self._folder} cannot be read ({error.strerror}): make '
                     'it readable, or choose another --workdir') from error

  def latest(self) -> int | None:
    """Returns the completed rounds of the newest sound state, or None."""
    return self._latest if self._latest >= 0 else None

  def oldest(self) -> int:
    """Returns the completed rounds of the oldest state that is kept."""
    # Other hosts may not see yet what the first host has just written.
    return min([step for step in self._steps() if step <= self._latest
                ][-self._keep:], default=self._latest)

  def restore(self, like: PyTree) -> PyTree | None:
    """Returns the newest sound state, or None if there is none.

    Args:
      like: a state of the same structure and dtypes, with the shardings of the
        result. Leading axes may have other lengths, because the padding of the
        clients' axis depends on the number of devices. Rows are then left out,
        or rows of zeros added.

    Raises:
      BadInput: the saved state has another structure or other shapes.
    """
    if self.latest() is None:
      return None
    wanted, found = map(_shapes, (like, self._metadata()))
    if wanted != found:
      name = min(dict(wanted ^ found))
      raise BadInput(f'{self._folder} holds a state of other shapes '
                     f'than this version makes, in {name}: choose another '
                     '--workdir')
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
      return self._handler.restore(self._state(), args=ocp.args.StandardRestore(
          abstract, strict=False))
    except TypeError as error:
      if 'PRNG' not in str(error):
        raise
      raise BadInput(
          f'{self._folder} was written while JAX drew by another generator '
          '(JAX_DEFAULT_PRNG_IMPL), whose numbers this version does not draw: '
          'choose another --workdir') from error

  def restore_plain(self, *part: str) -> PyTree | None:
    """Returns the newest sound state as nested dicts of arrays, or None.

    All arrays are put on the first device.

    Args:
      *part: the keys of the only part to read, from the outermost dict on.

    Returns:
      The dicts, without all other parts.

    Raises:
      KeyError: there is no such part.
    """
    if self.latest() is None:
      return None
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        functools.reduce(operator.getitem, part, self._metadata()))
    for key in reversed(part):
      abstract = {key: abstract}
    # StandardRestore refuses to read a part.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
      return handler.restore(self._state(), args=ocp.args.PyTreeRestore(
          abstract, partial_restore=True, restore_args=(
              ocp.checkpoint_utils.construct_restore_args(abstract))))

  def _state(self) -> epath.Path:
    return epath.Path(self._folder / str(self._latest) / _STATE)

  def _metadata(self) -> PyTree:
    return self._handler.metadata(self._state()).tree

  def save(self, step: int, state: PyTree,
           sealed: Sequence[pathlib.Path] = ()) -> None:
    """Writes a state; returns when it is on disk. A step is written once.

    Args:
      step: the number of completed rounds.
      state: the state; each host writes its own shards.
      sealed: other files of the workdir that a resumed run needs. They are
        checked together with the checkpoint.

    Raises:
      OSError: it could not be written; earlier checkpoints are unchanged.
    """
    if step == self._latest:
      return
    quiet_threads.hush()
    part = self._folder / f'{step}{durable_files.PART}'
    self.tidy()

    def on_first(act: Callable[[], Any]) -> None:
      multihost.together(lambda: act() if multihost.first() else None)
    try:
      on_first(lambda: (part / _STATE).mkdir(parents=True))
      multihost.together(lambda: self._handler.save(
          epath.Path(part / _STATE), args=ocp.args.StandardSave(state)))
      on_first(lambda: self._finish(part, step, sealed))
    except OSError:
      if multihost.first():
        durable_files.remove(part)
      raise
    self._latest = step
    if multihost.first():
      for wrong in self.damaged:  # the step just saved has been replaced
        if wrong != step:
          durable_files.discard(self._folder / str(wrong))
    self.damaged = {}
    self.tidy()

  def _finish(self, part: pathlib.Path, step: int,
              sealed: Sequence[pathlib.Path]) -> None:
    """Adds the manifest to what all hosts wrote, and gives it its name."""
    self._handler.finalize(epath.Path(part / _STATE))
    found = sorted(path for path in part.rglob('*') if path.is_file())
    manifest = {
        'files': {str(x.relative_to(part)): durable_files.digest(x)
                  for x in found},
        'sealed': [str(x.absolute().relative_to(self._folder.parent))
                   for x in sealed]}
    path = part / _MANIFEST
    path.write_bytes(durable_files.seal(json.dumps(manifest).encode()))
    for each in [*found, path, *(x for x in part.rglob('*') if x.is_dir())]:
      durable_files.sync(each)
    durable_files.sync(part)
    final = self._folder / str(step)
    if final.exists():  # a damaged one; its rounds have been run again
      durable_files.discard(final)
    os.rename(part, final)
    durable_files.sync(self._folder)
    durable_files.sync(self._folder.parent)

  def tidy(self) -> None:
    """Removes unfinished checkpoints and those that are no longer kept.

    Only the process that holds the workdir's lock may call it.
    """
    if not multihost.first() or not self._folder.is_dir():
      return
    for path in self._folder.glob(f'*{durable_files.PART}'):
      durable_files.remove(path)
    if self.latest() is not None:
      oldest = self.oldest()
      for step in self._steps():
        if step < oldest:
          durable_files.discard(self._folder / str(step))

  def close(self) -> None:
    """Releases Orbax's resources."""
    self._handler.close()


def _shapes(tree: PyTree) -> set[tuple[str, Any]]:
  """The path of each leaf, and its shape without the first axis."""
  def name(path):
    return '.'.join(str(getattr(key, 'name', getattr(
        key, 'key', getattr(key, 'idx', key)))) for key in path)
  return {(name(path), tuple(x.shape[1:])) for path, x in
          jax.tree_util.tree_leaves_with_path(tree)}
