"""Scores the saved networks of a run, and keeps the scores."""

from collections.abc import Callable, Sequence
import functools
import pathlib

from rich.console import Console
from rich.text import Text

from fedu_jax.core.state import Online
from fedu_jax.data import sources
from fedu_jax.evaluation import protocols
from fedu_jax.evaluation import score_file
from fedu_jax.evaluation import score_tables
from fedu_jax.evaluation.encoder_scores import best
from fedu_jax.evaluation.encoder_scores import Scorer
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import prng
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput, Unsaved
from fedu_jax.training import finished_run

# The rounds that a network was trained for, and a function that loads it.
Saved = tuple[int, Callable[[], tuple[Scorer, Online]]]

_FILE = 'evaluation.json'


@host_memory.watched('nothing of the run is lost: end other programs, or ask '
                     'for fewer or smaller protocols')
@prng.fixed()
def ask(workdir: str | pathlib.Path, protocol: str, *,
        encoder: str = 'federation', data_dir: str = '', source: str = '',
        console: Console | None = None,
        trained: Saved | None = None) -> dict[str, float]:
  """Scores an encoder of a run by several protocols.

  Scores in `evaluation.json` after the same number of rounds are reused.

  Args:
    workdir: the folder of a run.
    protocol: the protocols, as `protocols.parse` reads them.
    encoder: 'federation', 'untrained', or 'alone0' and so on.
    data_dir: the folder of TFDS's data sets; '' for TFDS's default.
    source: where the run's data is now, if it was moved; '' for where it was.
    console: the console to print on.
    trained: the network, which is loaded only if a score is missing. None means
      that of the newest checkpoint in the folder.

  Returns:
    The scores by name, which are also written to `evaluation.json`.

  Raises:
    BadInput: the folder has no such run, or a protocol fails.
    Unsaved: the scores are printed, but could not be written.
  """
  console = console or terminal.console()
  asked = protocols.parse(protocol)
  folder = pathlib.Path(workdir)
  finished_run.check_name(encoder)
  rounds, load = trained or _newest(folder, encoder, data_dir, source, console)
  path = folder / _FILE
  before = score_file.read(path)
  known = score_file.of(before, encoder, rounds)
  missing = [own for own in asked if own.text not in known]
  unwritten = None
  if missing or source:  # with `source`, its images are always checked
    scorer, online = load()
    if not trained and finished_run.rounds_of(folder, encoder) != rounds:
      # The run has gone on meanwhile, and the network is of a later round.
      return ask(folder, protocol, encoder=encoder, data_dir=data_dir,
                 source=source, console=console)
    check_labels(missing, scorer, str(folder))
    networks = [online]
    if encoder == 'untrained':
      networks.append(scorer.fitted(online))
    for own in missing:
      known[own.text] = score(own, scorer, networks, encoder, console)
      try:
        score_file.add(path, encoder, rounds, known, before)
        unwritten = None
      except OSError as error:
        unwritten = error  # the scores are still printed
  scores = {name: value for own in asked
            for name, value in known[own.text].items()}
  show(encoder, scores, console)
  if unwritten:
    raise Unsaved(
        f'{path} could not be written ({durable_files.reason(unwritten)}): '
        f'{durable_files.advice(unwritten)}, or they are computed again')
  return scores


def is_scored(workdir: str | pathlib.Path, protocol: str, *, encoder: str,
              rounds: int) -> bool:
  """Whether the folder has all scores after so many rounds.

  Raises:
    BadInput: the file of scores cannot be read.
  """
  known = score_file.read(pathlib.Path(workdir) / _FILE)
  return {own.text for own in protocols.parse(protocol)} <= score_file.of(
      known, encoder, rounds).keys()


def _newest(folder: pathlib.Path, encoder: str, data_dir: str, source: str,
            console: Console) -> Saved:
  """The network of the newest checkpoint; arguments as in `ask`."""
  config = finished_run.config_of(folder, data_dir, source)
  return finished_run.rounds_of(folder, encoder), functools.partial(
      finished_run.restore, config, folder, encoder, console)


def check_labels(asked: Sequence[protocols.Asked], scorer: Scorer,
                 folder: str) -> None:
  """Raises BadInput for protocols that need labels the data does not have."""
  for own in asked:
    if own.protocol.labels and not scorer.labelled:
      raise BadInput(
          f'protocol {own.text} needs labelled training and test images, which '
          f'the data of {folder} does not have: choose geometry, or '
          'transfer:<data source>')


def score(own: protocols.Asked, scorer: Scorer, networks: Sequence[Online],
          encoder: str, console: Console) -> dict[str, float]:
  """Runs one protocol; the best score of several networks counts."""
  if own.protocol.score is protocols.transfer:
    sources.import_reader(own.choice)
  with console.status(Text(f'{encoder}: {own.text}')):
    return best([own.protocol.score(scorer, network, own.choice)
                 for network in networks])


def show(encoder: str, scores: dict[str, float], console: Console) -> None:
  """Prints the scores of an encoder."""
  console.print(score_tables.of_one_encoder(encoder, scores))
  if unsound := score_tables.unsound_line({encoder: scores}):
    terminal.say(console, unsound)
