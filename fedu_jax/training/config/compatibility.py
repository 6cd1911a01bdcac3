"""Checks of values of a config that are valid alone but not together.

Checks that need the data or the devices are made later, where these are known,
and before anything is written.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedu_jax.learners import filters
from fedu_jax.models import networks
from fedu_jax.models import resnet
from fedu_jax.runtime import accelerators
from fedu_jax.runtime.errors import BadInput

KINDS = ('learner', 'aggregation', 'rule')  # the sections that make a method


def check(flat: dict[str, Any], *, labelled: bool,
          belongs: Mapping[str, Sequence[str]],
          suits: Callable[[Mapping[str, Any]], None]) -> None:
  """Checks that the values of a config fit together.

  Args:
    flat: values by dotted names; each is valid alone.
    labelled: whether the learner trains on labels.
    belongs: for the names of learner, aggregation and rule, the sections that
      must all have this name; empty for a piece that goes with any other.
    suits: the method's own check of `flat`, see `Method.check`.

  Raises:
    BadInput: fields do not fit together; the message names the first ones.
  """
  _sizes(flat)
  _network(flat)
  _views(flat)
  _precision(flat)
  _method(flat, belongs)
  _suits(flat, suits)
  _data(flat, labelled)


def _sizes(flat: dict[str, Any]) -> None:
  """Checks the numbers of clients, cohorts, batches and devices."""
  clients = flat['clients']
  if flat['cohort'] > clients:
    raise BadInput(f"config.cohort is {flat['cohort']}, but there are "
                   f'{clients} clients: at most that, or 0 for all')
  if flat['evaluation.alone'] > clients:
    raise BadInput(f"config.evaluation.alone is {flat['evaluation.alone']}, "
                   f'but there are {clients} clients')
  each, devices = flat['devices_per_client'], flat['devices']
  if flat['batch_size'] % each:
    raise BadInput(f"config.batch_size is {flat['batch_size']}, which {each} "
                   'devices cannot share evenly: change it or '
                   'devices_per_client')
  if 0 < accelerators.wanted(devices).most < each:
    raise BadInput(f'config.devices_per_client is {each}, but config.devices '
                   f'is {devices}: at most that')


def _network(flat: dict[str, Any]) -> None:
  """Checks the fields of a network of ours, as far as they are known."""
  name, patch = flat['model.name'], flat['model.patch']
  transformer = name in networks.TRANSFORMERS
  if patch and not transformer and ':' not in name:
    raise BadInput(f'config.model.patch is {patch}, and {name} has no patches: '
                   'set it to 0')
  if transformer and flat['divergence.name'] == 'conv_distance':
    raise BadInput(
        f'config.divergence.name is conv_distance, and {name} has no '
        'convolutions to compare: set it to squared_distance, with a '
        'config.rule.threshold for that distance')
  if side := flat['data.image_size']:
    sides(flat, side)


def sides(flat: Mapping[str, Any], side: int) -> None:
  """Checks that images suit the network, if it is one of ours.

  Args:
    flat: values by dotted names.
    side: the pixels of an image's shorter side.

  Raises:
    BadInput: they are too small for the stem, or no whole number of patches.
  """
  name, stem = flat['model.name'], flat['model.stem']
  if name in networks.TRANSFORMERS:
    patch = flat['model.patch'] or networks.PATCHES[stem]
    if side % patch:
      raise BadInput(
          f'images of {side} pixels are no whole number of patches of {patch} '
          'pixels: change config.model.patch or config.data.image_size, for '
          f'example to {_divisor(side, patch)} or '
          f'{-(-side // patch) * patch}')
  elif name in networks.NETWORKS and side < resnet.LEAST[stem]:
    raise BadInput(
        f'config.model.stem is {stem}, which needs images of '
        f'{resnet.LEAST[stem]} pixels or more, not {side}: set it to cifar, or '
        'a larger config.data.image_size')


def _divisor(side: int, most: int) -> int:
  """The largest divisor of `side` up to `most`."""
  return next(x for x in range(most, 0, -1) if side % x == 0)


def _views(flat: dict[str, Any]) -> None:
  """Refuses a blur of images that are known to be too small for one."""
  side = flat['data.image_size']
  if 0 < side < filters.LEAST and max(flat['view.blur']) > 0:
    raise BadInput(
        f'config.view.blur needs images of {filters.LEAST} pixels or more, and '
        f'config.data.image_size is {side}: set it to (0, 0)')


def _precision(flat: dict[str, Any]) -> None:
  """Refuses TF32 in name where other fields ask for other products."""
  if flat['model.precision'] != 'tensorfloat32':
    return
  if flat['model.convolution'] == 'exact':
    raise BadInput('config.model.precision is tensorfloat32, but '
                   'config.model.convolution is exact, which computes in '
                   'float32: set precision to float32, or convolution to fast')
  if flat['model.dtype'] == 'bfloat16':
    raise BadInput('config.model.precision is tensorfloat32, but '
                   'config.model.dtype is bfloat16, so the factors have fewer '
                   'bits already: set precision to default, or to float32 for '
                   'the products that remain, those of losses')


def _method(flat: dict[str, Any], belongs: Mapping[str, Sequence[str]]
            ) -> None:
  """Checks that learner, aggregation and rule are of one method."""
  parts = [flat[f'{kind}.name'] for kind in KINDS]
  for name in sorted(belongs):
    own = belongs[name]
    if any(flat[f'{kind}.name'] != name for kind in own):
      said = 'all three' if len(own) == len(KINDS) else ' and '.join(own)
      raise BadInput(f'learner, aggregation and rule are {", ".join(parts)}: '
                     f'{name} is {said} or none')


def _suits(flat: dict[str, Any], suits: Callable[[Mapping[str, Any]], None]
           ) -> None:
  """Runs the method's own check."""
  try:
    suits(flat)
  except ValueError as error:
    raise BadInput(str(error)) from error
  except Exception as error:  # a researcher's check can raise anything
    raise BadInput(f"config.learner.name is {flat['learner.name']!r}, whose "
                   f'check failed ({type(error).__name__}: {error})'
                   ) from error


def _data(flat: dict[str, Any], labelled: bool) -> None:
  """Checks that the source has the owners or labels that are needed."""
  source, partition = flat['data.source'], flat['partition.name']
  kind = source.partition(':')[0]
  owned = kind == 'folder'  # it has owners, and no labels
  # An npz or a researcher's function must be read to know what it has.
  if partition == 'natural' and kind in ('digits', 'tfds'):
    raise BadInput(f'partition natural needs owners, and {source} has none: '
                   'set --config.partition.name=iid')
  if partition in ('by_class', 'dirichlet') and owned:
    raise BadInput(f'partition {partition} needs labels, and {source} has '
                   'none: set --config.partition.name=natural')
  if labelled and owned:
    raise BadInput(f"learner {flat['learner.name']} needs labels, and {source} "
                   'has none: choose another')
