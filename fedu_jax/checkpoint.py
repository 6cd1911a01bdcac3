"""The whole state on disk, through Orbax."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from fedu_jax.errors import BadInput
from fedu_jax.state import PyTree


class Checkpoints:
  """The checkpoints of one run, numbered by the rounds completed."""

  def __init__(self, folder: pathlib.Path, *, keep: int):
    """Opens or creates `folder`, of which the newest `keep` steps stay."""
    # Saving in the background would read buffers that the next round donates.
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=False)
    self._manager = ocp.CheckpointManager(
        folder.absolute(), options=options,
        item_handlers=ocp.StandardCheckpointHandler())  # for its metadata

  def latest(self) -> int | None:
    """Returns the rounds completed by the newest state; None: there is none.
    """
    return self._manager.latest_step()

  def oldest(self) -> int:
    """Returns the rounds completed by the oldest state that is kept."""
    return min(self._manager.all_steps())

  def restore(self, like: PyTree) -> PyTree | None:
    """Returns the newest state, or None if there is none.

    Args:
      like: a state of the same structure and dtypes, lying where the restored
        one shall lie. Leading axes may differ in length, as those of clients
        do between numbers of devices: rows are left out, or added and zero.

    Raises:
      BadInput: the state that was saved has another structure or shapes.
    """
    step = self.latest()
    if step is None:
      return None
    wanted, found = map(_shapes, (like, self._manager.item_metadata(step)))
    if wanted != found:
      name = min(dict(wanted ^ found))
      raise BadInput(f'{self._manager.directory} holds a state of other shapes '
                     f'than this version makes, in {name}: choose another '
                     '--workdir')
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return self._manager.restore(
        step, args=ocp.args.StandardRestore(abstract, strict=False))

  def restore_plain(self) -> PyTree | None:
    """Returns the newest state as nested dicts of arrays, or None.

    They lie on one device, on however many they were.
    """
    step = self.latest()
    if step is None:
      return None
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        self._manager.item_metadata(step))
    return self._manager.restore(
        step, args=ocp.args.StandardRestore(abstract))

  def save(self, step: int, state: PyTree) -> None:
    """Writes a state; returns when it is on disk. A step is written once."""
    if step != self.latest():
      self._manager.save(step, args=ocp.args.StandardSave(state))

  def close(self) -> None:
    """Releases what the manager holds."""
    self._manager.close()


def _shapes(tree: PyTree) -> set[tuple[str, Any]]:
  """Each leaf's path and what it has of shape behind the first axis."""
  def name(path):
    return '.'.join(str(getattr(key, 'name', getattr(
        key, 'key', getattr(key, 'idx', key)))) for key in path)
  return {(name(path), tuple(x.shape[1:])) for path, x in
          jax.tree_util.tree_leaves_with_path(tree)}
