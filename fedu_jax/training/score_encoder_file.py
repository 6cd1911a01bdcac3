"""Scores an exported encoder on labelled data, as a run's encoder is scored."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any

from rich.console import Console

from fedu_jax.core.state import Online, Variables
from fedu_jax.data import labelled_files
from fedu_jax.data import labelled_images
from fedu_jax.data import reading_progress
from fedu_jax.data.dataset import Dataset
from fedu_jax.encoders import image_rows
from fedu_jax.encoders import weights_file
from fedu_jax.encoders.about import About
from fedu_jax.encoders.named_network import Named
from fedu_jax.evaluation import protocols
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import prng
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import prepare
from fedu_jax.training import score_run
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_dict
from fedu_jax.training.config.config_dict import Config
from fedu_jax.training.config.fields import FIELDS

# The sections of a file's config that count. Others could name functions to
# import, and a file must not.
_SECTIONS = 'data.', 'evaluation.', 'view.', 'model.'


@host_memory.watched('end other programs, or ask for fewer protocols')
@prng.fixed()
def ask(path: pathlib.Path, protocol: str, *, source: str, data_dir: str,
        console: Console, named: Named = Named()) -> dict[str, float]:
  """Scores an encoder file by several protocols, and prints the scores.

  The settings are those of the file's run, so that the same data gives the
  scores of the run. A file without a run has the settings' defaults.

  Args:
    path: a file that `fedu_jax.export` wrote, or one of torchvision or timm.
    protocol: the protocols, as `protocols.parse` reads them; '' for the linear
      probe, and for kNN on what the file puts out.
    source: the labelled data: as config.data.test, or another source as
      config.data.source.
    data_dir: the folder of TFDS's data sets; '' for TFDS's default.
    console: the console to print on.
    named: of a file of torchvision or timm: its network.

  Returns:
    The scores by name.

  Raises:
    BadInput: the file or the data cannot be read, or a protocol fails.
  """
  encoder = weights_file.load(path, named)
  about = encoder.about
  asked = protocols.parse(protocol or (
      'linear,knn' if about.projector else 'linear,knn_features'))
  for own in asked:
    if own.text.partition(':')[0] == 'classifier':
      raise BadInput('protocol classifier needs the predictor, which no '
                     'file of an encoder has: choose linear')
    if own.text == 'knn' and not about.projector and (
        about.model.get('projector_layers')):
      raise BadInput(f"protocol knn is on the projector's output, and {path} "
                     'has no projector: choose knn_features, or export with '
                     '--projector')
  of_files = source.partition(':')[0] in labelled_files.KINDS
  config = _config(
      checks.complete(dict(about.config)) if about.config else
      _config_of(about), FIELDS['data.source'].default if of_files else source,
      data_dir)
  nets = weights_file.network(
      {**about.model, 'dtype': config.model.dtype}, projector=about.projector)
  data = (_labelled(source, about, console) if of_files else
          prepare.data_of(config, console=console))
  scorer = prepare.scorer_of(config, nets, data)
  score_run.check_labels(asked, scorer, source)
  networks = [Online(encoder.variables, Variables({}, {}))]
  if about.encoder == 'untrained':
    networks.append(scorer.fitted(networks[0]))
  scores: dict[str, float] = {}
  for own in asked:
    scores |= score_run.score(own, scorer, networks, about.encoder, console)
  score_run.show(path.name, scores, console)
  return scores


def _labelled(source: str, about: About, console: Console) -> Dataset:
  """Reads a folder of labelled images, or a CSV of them, as data.test does."""
  how = image_rows.how_of(about)
  with reading_progress.shown(console) as progress:
    found = labelled_images.read(source, how, [], progress,
                                 functools.partial(terminal.say, console))
  for line in found.lines:
    terminal.say(console, line)
  return Dataset(found.probe_images, found.probe_labels, found.test_images,
                 found.test_labels)


def _config_of(about: About) -> dict[str, Any]:
  """The fields of a config that an encoder without a run says."""
  return {f'model.{name}': x for name, x in about.model.items()} | {
      'data.channels': about.channels, 'data.image_size': about.size[0]}


def _config(saved: Mapping[str, Any], source: str, data_dir: str) -> Config:
  """The config by which a file's encoder is scored on some data."""
  flat = {name: field.default for name, field in FIELDS.items()} | {
      name: x for name, x in saved.items()
      if name in FIELDS and (name == 'seed' or name.startswith(_SECTIONS))}
  config = config_dict.from_flat(flat | checks.PLACES | {
      'data.dir': data_dir, 'data.source': source, 'data.leave_out': '',
      'data.test': ''})
  for name, value in checks.flatten(config).items():
    if name in FIELDS and (wanted := FIELDS[name].check(value)):
      raise BadInput(f'{name} is {value!r}; it must be {wanted}')
  return config
