"""Ways to ask what an encoder is worth, each chosen by its name in a text.

'linear,knn,semi:0.01,transfer:digits': names, with what follows a colon as the
protocol's own choice. A protocol is (scorer, online, choice) -> scores.
"""

from collections.abc import Callable
import functools
import pathlib
import re
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.text import Text

from fedu_jax.core.state import Online
from fedu_jax.data import sources
from fedu_jax.evaluation.encoder_scores import best, mixed, Scorer
from fedu_jax.evaluation import probes
from fedu_jax.evaluation import score_file
from fedu_jax.evaluation import semi_supervised
from fedu_jax.learners import augment
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput, Unsaved
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import prng
from fedu_jax.runtime import terminal
from fedu_jax.training import prepare
from fedu_jax.training import round_report

Score = Callable[[Scorer, Online, str], dict[str, float]]


class Protocol(NamedTuple):
  """A way to ask, and what it needs."""
  score: Score
  labels: bool = True  # of training and test images of the run's own data


def linear(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """The linear probe on features below the projector.

  linear:raw takes features as they are, whatever the config says of it.
  """
  if choice not in ('', 'raw'):
    raise BadInput(f'protocol linear:{choice}: use linear, or linear:raw for '
                   'features as they are')
  if not choice:
    return {'linear': scorer.linear(online.encoder)}
  return {'linear, raw features': scorer.raw().linear(online.encoder)}


def knn(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """The released code's monitor, on the projector's output."""
  _nothing('knn', choice)
  return {'knn': scorer.knn(online.encoder)}


def knn_features(scorer: Scorer, online: Online,
                 choice: str) -> dict[str, float]:
  """kNN on features below the projector."""
  _nothing('knn_features', choice)
  return {'knn, features': scorer.knn(online.encoder, below_projector=True)}


def classifier(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """A supervised federation's own classifier, without a probe."""
  _nothing('classifier', choice)
  if not scorer.classifies:
    raise BadInput('protocol classifier is for runs of learner supervised, '
                   'which train one: choose linear')
  return {'classifier': scorer.classifier(online)}


def semi(scorer: Scorer, online: Online, choice: str, *,
         fine_tune: bool = False) -> dict[str, float]:
  """A head on a share of the labels, as released: semi:0.01.

  semi:0.01:balanced takes the labelled examples evenly by class.
  """
  name = 'finetune' if fine_tune else 'semi'
  ratio, _, how = choice.partition(':')
  try:
    order = mixed(scorer.train_labels, scorer.seed)
    rows = order[semi_supervised.labelled_rows(
        scorer.train_labels[order], float(ratio), balanced=how == 'balanced')]
    if how not in ('', 'balanced'):
      raise ValueError(f'{how!r} is not balanced')
  except (ValueError, OverflowError) as error:
    raise BadInput(f'protocol {name}:{choice} ({error}): use {name}:<share of '
                   f'the labels>, such as {name}:0.01 or {name}:0.01:balanced'
                   ) from error
  accuracy = semi_supervised.semi_supervised(
      scorer.nets.encoder, online.encoder, scorer.train_images[rows],
      scorer.train_labels[rows], scorer.test_images, scorer.test_labels,
      jax.random.key(scorer.seed), num_classes=scorer.num_classes,
      fine_tune=fine_tune, hidden=scorer.settings.semi_hidden,
      epochs=scorer.settings.semi_epochs)
  return {f'{name} {100 * float(ratio):g} %' + (f', {how}' if how else ''):
          accuracy}


def transfer(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """The linear probe on another data set: transfer:digits, transfer:tfds:...
  """
  data = sources.load(choice, data_dir=scorer.data_dir,
                      image_size=scorer.train_images.shape[1])
  if data.train_labels is None or data.test_labels is None:
    raise BadInput(f'protocol transfer:{choice} needs labelled training and '
                   'test images: choose another data set')
  assert data.test_images is not None  # labels never come without images
  there = scorer._replace(
      train_images=np.asarray(data.train_images),
      train_labels=data.train_labels,
      test_images=np.asarray(data.test_images), test_labels=data.test_labels)
  return {f'transfer to {choice.removeprefix("tfds:")}':
          there.linear(online.encoder)}


def geometry(scorer: Scorer, online: Online, choice: str) -> dict[str, float]:
  """Alignment and uniformity (Wang & Isola 2020) of the test images' features.

  Without labels: how close two views of an image lie, and how evenly images
  spread over the sphere; the lower, the better, for both. Where the data has
  no test images, they are those of the training images.
  """
  _nothing('geometry', choice)
  images = scorer.test_images
  if not len(images):
    images = scorer.train_images
  rngs = jax.random.split(jax.random.key(scorer.seed))
  draw = jax.jit(augment.make_view(**scorer.view))
  views = [np.asarray(np.round(255 * np.concatenate([
      draw(images[i:i + 500], jax.random.fold_in(rng, i))
      for i in range(0, len(images), 500)]))).astype(np.uint8)
      for rng in rngs]
  z1, z2 = (scorer.embed(online.encoder, x) for x in views)
  return {'alignment': float(probes.alignment(z1, z2)),
          'uniformity': float(probes.uniformity(
              scorer.embed(online.encoder, images)))}


PROTOCOLS: dict[str, Protocol] = {
    'linear': Protocol(linear), 'knn': Protocol(knn),
    'knn_features': Protocol(knn_features), 'classifier': Protocol(classifier),
    'semi': Protocol(semi),
    'finetune': Protocol(functools.partial(semi, fine_tune=True)),
    'transfer': Protocol(transfer, labels=False),
    'geometry': Protocol(geometry, labels=False)}


def parse(text: str) -> list[tuple[str, Protocol, str]]:
  """Reads a list of protocols: [(as written, protocol, choice)].

  Raises:
    BadInput: a name is none of them.
  """
  found = []
  for part in text.split(','):
    name, _, choice = part.strip().partition(':')
    if name not in PROTOCOLS:
      raise BadInput(f'protocol {part.strip()!r}: choose from '
                     f'{", ".join(PROTOCOLS)}')
    found.append((part.strip(), PROTOCOLS[name], choice))
  return found


@host_memory.watched('nothing of the run is lost: end other programs, or ask '
                     'for fewer or smaller protocols')
@prng.fixed()
def ask(workdir: str | pathlib.Path, protocol: str, *,
        encoder: str = 'federation', data_dir: str = '', source: str = '',
        console: Console | None = None,
        trained: tuple[int, Callable[[], tuple[Scorer, Online]]] | None = None
        ) -> dict[str, float]:
  """Scores an encoder of a run by several protocols.

  What was scored before, after as many rounds, and is asked again, is read from
  `evaluation.json`.

  Args:
    workdir: the folder of a run.
    protocol: as `parse` reads it.
    encoder: 'federation', 'untrained', or 'alone0' and so on.
    data_dir: where data sets lie; '' for TFDS's default.
    source: where the run's data is now, if it was moved; '' for where it was.
    console: where to print.
    trained: the rounds of the encoder's training, and what returns its scorer
      and the network, if anything is left to score; None, those of the newest
      checkpoint in the folder.

  Returns:
    The scores by name, also written to `evaluation.json`.

  Raises:
    BadInput: the folder holds no such run, or a protocol cannot be carried out.
    Unsaved: they are printed, but could not be written.
  """
  console = console or terminal.console()
  asked = parse(protocol)
  folder = pathlib.Path(workdir)
  if not re.fullmatch('federation|untrained|alone[0-9]{1,6}', encoder):
    raise BadInput(f'--encoder is {encoder!r}: choose federation, untrained '
                   'or, if clients were trained alone too, alone0')
  if trained:
    rounds, load = trained
  else:
    config = prepare.config_of(folder, data_dir, source)
    load = functools.partial(prepare.restore, config, folder, encoder, console)
    rounds = prepare.rounds_of(folder, encoder)
  path = folder / 'evaluation.json'
  before = score_file.read(path)
  mine = score_file.of(before, encoder, rounds)
  missing = [(name, own, choice) for name, own, choice in asked
             if name not in mine]
  unwritten = None
  if missing or source:  # a place that is named is looked at
    scorer, online = load()
    if not trained and prepare.rounds_of(folder, encoder) != rounds:
      # It has trained on meanwhile, and what was read is of a later round.
      return ask(folder, protocol, encoder=encoder, data_dir=data_dir,
                 source=source, console=console)
    for name, own, _ in missing:
      if own.labels and not scorer.labelled:
        raise BadInput(
            f'protocol {name} needs labelled training and test images, which '
            f'the data of {folder} does not have: choose geometry, or '
            'transfer:<data source>')
    networks = [online]
    if encoder == 'untrained':
      networks.append(scorer.fitted(online))
    for name, own, choice in missing:
      if own.score is transfer:
        sources.import_reader(choice)
      with console.status(Text(f'{encoder}: {name}')):
        mine[name] = best(
            [own.score(scorer, network, choice) for network in networks])
      try:
        score_file.add(path, encoder, rounds, mine, before)
        unwritten = None
      except OSError as error:
        unwritten = error  # what is asked for is at least shown
  scores = {key: value for name, _, _ in asked
            for key, value in mine[name].items()}
  console.print(round_report.plain_table(encoder, scores))
  if unsound := round_report.unsound_line({encoder: scores}):
    terminal.say(console, unsound)
  if unwritten:
    raise Unsaved(
        f'{path} could not be written ({durable_files.reason(unwritten)}): '
        f'{durable_files.advice(unwritten)}, or they are computed again')
  return scores


def scored(workdir: str | pathlib.Path, protocol: str, *, encoder: str,
           rounds: int) -> bool:
  """Whether `ask` would find all that is asked, after so many rounds.

  Raises:
    BadInput: what lies there cannot be read.
  """
  known = score_file.read(pathlib.Path(workdir) / 'evaluation.json')
  return {name for name, _, _ in parse(protocol)} <= score_file.of(
      known, encoder, rounds).keys()


def _nothing(name: str, choice: str) -> None:
  if choice:
    raise BadInput(f'protocol {name} takes no choice, not {choice!r}')
