"""The record that goes with an encoder: its images, features, network and run.

It is written into every exported file, as JSON. A reader needs nothing else to
prepare an image: the record says the size, the channels, the depth and the
scaling of pixels. The constants of `model.normalise` are in it too, though the
network applies them itself.
"""

from collections.abc import Mapping
import json
from typing import Any, NamedTuple

from fedu_jax.models import normalisation
from fedu_jax.runtime.errors import BadInput

NOT_STATED = 'not stated'
_FORMAT = 1  # of the JSON text; raised if a reader must know
_PATHS = 'npz', 'folder', 'csv'  # kinds of data that name a path


class About(NamedTuple):
  """What a program needs to use an encoder.

  Attributes:
    size: the height and width of an image, in pixels.
    channels: 3 (red, green, blue) or 1 (grey).
    dtype: the dtype of the run's images: 'uint8' or 'uint16'.
    features: D, the number of features of an image.
    projector: whether features are the projector's output.
    reading: the fields of config.data by which a file becomes pixels: fit,
      depth, colours and others, see `data.image_files.How`.
    model: the fields of config.model.
    encoder: 'federation', 'untrained', or 'alone0' and so on.
    rounds: the rounds after which the encoder was saved.
    config: the run's config by dotted names, without paths.
    licence: the licence of the weights, as their owner states it.
  """
  size: tuple[int, int]
  channels: int
  dtype: str
  features: int
  projector: bool = False
  reading: Mapping[str, Any] = {}
  model: Mapping[str, Any] = {}
  encoder: str = 'federation'
  rounds: int = 0
  config: Mapping[str, Any] = {}
  licence: str = NOT_STATED

  @property
  def shape(self) -> tuple[int, int, int]:
    """The shape of an image, [H, W, C]."""
    return (*self.size, self.channels)

  @property
  def largest(self) -> int:
    """The largest value of a pixel: 255 or 65535."""
    return 255 if self.dtype == 'uint8' else 65535

  @property
  def constants(self) -> dict[str, list[float]]:
    """The mean and deviation that the network applies to scaled pixels.

    Lists of a number for each channel; {} with model.normalise=none.
    """
    if self.model.get('normalise', 'none') == 'none':
      return {}
    both = {'mean': normalisation.MEAN, 'deviation': normalisation.DEVIATION}
    return {name: list(x) if self.channels == 3 else [sum(x) / len(x)]
            for name, x in both.items()}


def to_json(about: About) -> str:
  """Returns the record as JSON, with what a reader of the text needs."""
  return json.dumps({
      'format': _FORMAT,
      'input': f'{about.dtype} [N, {about.size[0]}, {about.size[1]}, '
               f'{about.channels}], {"RGB" if about.channels == 3 else "grey"}',
      'scaling': f'x / {about.largest}, inside the exported graph; a program '
                 'that loads the weights alone does it itself',
      'output': f'float32 [N, {about.features}]',
      **about.constants, **about._asdict()})


def from_json(text: str, where: str) -> About:
  """Reads a record that `to_json` made.

  Args:
    text: the JSON text.
    where: the file that has it, for messages.

  Raises:
    BadInput: the text is no record, or one of a later version.
  """
  try:
    found = json.loads(text)
    if found['format'] > _FORMAT:
      raise BadInput(f'{where} was exported by a later version of fedu_jax: '
                     'install that one')
    about = About(**{name: found[name] for name in About._fields})
    height, width = map(int, about.size)
    if min(height, width, about.features) < 1 or about.channels not in (1, 3) \
        or about.dtype not in ('uint8', 'uint16'):
      raise ValueError('a size, the channels or the dtype is wrong')
    return about._replace(size=(height, width))
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    if isinstance(error, BadInput):
      raise
    raise BadInput(f'the record of the encoder in {where} is damaged '
                   f'({type(error).__name__}: {error}): export it again'
                   ) from error


def without_paths(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Copies a flat config; names of files and folders stay at home.

  An exported encoder goes to other people, and a path may name a person or a
  patient.

  Args:
    flat: the config by dotted names.

  Returns:
    The config. Of a source that names a path only the kind is left, such as
    'folder'; folders to leave out and files to start from become ''.
  """
  found = dict(flat)
  for name in ('data.source', 'data.test'):
    kind = str(found.get(name, '')).partition(':')[0]
    if kind in _PATHS:
      found[name] = kind
  return found | {name: '' for name in (
      'data.dir', 'data.leave_out', 'model.init_from') if name in found}
