"""An encoder to call: images of any size and count in, features out."""

from collections.abc import Iterable, Iterator
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import numpy as np

from fedu_jax.core import argument_checks
from fedu_jax.core import pixels
from fedu_jax.core import precision
from fedu_jax.core.state import Array, Variables
from fedu_jax.encoders import pictures
from fedu_jax.encoders.about import About
from fedu_jax.models import networks


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
  """A network that is no longer trained, and what is needed to use it.

  Attributes:
    module: the network.
    variables: its parameters and statistics.
    about: the record of its images, its features and its run.
    batch_size: the images that `__call__` passes at once. The last batch is
      padded to as many, so that one program serves for any number of images.
  """
  module: nn.Module
  variables: Variables
  about: About
  batch_size: int = 32

  def apply(self, images: Array | np.ndarray) -> Array:
    """Computes features in full float32; for use in programs of one's own.

    Args:
      images: [N, H, W, C] u8 or u16, of the size in `about`.

    Returns:
      [N, D] f32.

    Raises:
      ValueError: the images have another shape or dtype.
    """
    argument_checks.pixels(images, channels=(self.about.channels,))
    if tuple(images.shape[1:]) != self.about.shape:
      raise ValueError(f'images are {tuple(images.shape)}, and this encoder '
                       f'takes [N, {", ".join(map(str, self.about.shape))}]: '
                       'call it, which resizes them')
    return embedded(images, self.variables, module=self.module,
                    projector=self.about.projector)

  def __call__(self, images: Any) -> np.ndarray:
    """Computes features of images of any size.

    Images of another size are cropped or padded, and resized, as files are for
    training.

    Args:
      images: one image, [H, W] or [H, W, 1 or 3] u8 or u16; several of one
        size, [N, H, W] or [N, H, W, 1 or 3]; or a list of images of any sizes.

    Returns:
      [N, D] f32; [D] for one image.

    Raises:
      ValueError: the images have another shape or dtype.
    """
    each, single = pictures.listed(images)
    found = np.concatenate([np.zeros((0, self.about.features), np.float32), *(
        self.stream(pictures.fitted(image, self.about) for image in each))])
    return found[0] if single else found

  def with_depth(self, bits: int) -> 'Encoder':
    """Copies the encoder, to read files of more than 8 bits as of `bits`."""
    reading = {**self.about.reading, 'depth': bits}
    return dataclasses.replace(
        self, about=self.about._replace(reading=reading))

  def stream(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Computes features batch by batch, in constant memory.

    Args:
      images: images [H, W, C] of the size in `about`.

    Yields:
      [n, D] f32, n at most `batch_size`.
    """
    batch: list[np.ndarray] = []
    for image in images:
      if batch and image.dtype != batch[0].dtype:
        yield self._of(batch)
        batch = []
      batch.append(image)
      if len(batch) == self.batch_size:
        yield self._of(batch)
        batch = []
    if batch:
      yield self._of(batch)

  def _of(self, batch: list[np.ndarray]) -> np.ndarray:
    full = np.zeros((self.batch_size, *batch[0].shape), batch[0].dtype)
    full[:len(batch)] = batch
    return np.asarray(_jitted(full, self.variables, module=self.module,
                              projector=self.about.projector))[:len(batch)]


@precision.full
def embedded(images: Any, variables: Variables, *, module: nn.Module,
             projector: bool) -> Array:
  """Computes features of images [N, H, W, C] u8 or u16, [N, D] f32.

  Args:
    images: the images.
    variables: the variables of the module.
    module: the encoder.
    projector: whether to return the projector's output.
  """
  method = '__call__' if projector else networks.features_method(module)
  found: Any = module.apply(variables._asdict(), pixels.to_unit(images),
                            train=False, method=method)
  return found


_jitted = jax.jit(embedded, static_argnames=('module', 'projector'))
