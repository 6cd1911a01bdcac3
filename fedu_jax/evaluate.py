"""Scores the saved networks of a run by several protocols.

  python -m fedu_jax.evaluate --workdir=/tmp/run \\
      --protocol=linear,knn,semi:0.01,semi:0.1,transfer:digits
"""

from absl import flags
from absl import logging
from rich.console import Console

from fedu_jax.runtime import accelerators
from fedu_jax.runtime import cli
from fedu_jax.runtime import gpu_settings
from fedu_jax.runtime import paths
from fedu_jax.runtime import signals
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import Ending
from fedu_jax.training import finished_run
from fedu_jax.training import named_flags
from fedu_jax.training import score_encoder_file
from fedu_jax.training import score_run

_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of a run that has saved a checkpoint.')
_FILE = flags.DEFINE_string(
    'encoder_file', None, 'In place of --workdir: a .safetensors file that '
    'fedu_jax.export wrote, or another one together with --network. --source '
    'names the labelled data: folder:<a folder a class>, csv:<file and '
    'label>, or a data source.')
_PROTOCOL = flags.DEFINE_string(
    'protocol', '', 'What to ask, separated by commas: linear[:raw], '
    'knn, knn_features, classifier, semi:<share>[:balanced], '
    'finetune:<share>[:balanced], transfer:<data source>, geometry. If not '
    'given: linear,knn; of a file without a projector linear,knn_features.')
_ENCODER = flags.DEFINE_string(
    'encoder', 'federation', 'Which network: federation, untrained, or '
    'alone<number of a client> if clients trained alone too.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', "The folder of TFDS's data sets; if not given, TFDS's own "
    'choice: $TFDS_DATA_DIR or ~/tensorflow_datasets.')
_SOURCE = flags.DEFINE_string(
    'source', '', "Where the run's data is now, if it was moved, such as "
    'folder:/new/place; its images must be the same.')


def _parse(argv: list[str]) -> list[str]:
  return cli.parse(argv, about=__doc__)


def main(_: list[str]) -> None:
  """Scores a run, or exits with one line that says why not."""
  logging.set_verbosity(logging.ERROR)
  signals.listen()
  if _WORKDIR.value is None and _FILE.value is None:
    cli.refuse('--workdir is missing; for example --workdir=/tmp/run')
  if _FILE.value is not None and (_WORKDIR.value or not _SOURCE.value):
    cli.refuse('--encoder_file takes --source=<labelled data>, and no '
               '--workdir')
  if _FILE.value is not None and _ENCODER.value != 'federation':
    cli.refuse('--encoder is for --workdir: a file has one encoder')
  if _FILE.value is None and any(named_flags.chosen()):
    cli.refuse('--network, --image_size and --normalise are for '
               '--encoder_file: the run says them itself')
  console = terminal.console()
  try:
    if _FILE.value is not None:
      _score_file(console)
      return
    workdir = paths.workdir(str(_WORKDIR.value))
    cli.keep_compiled_programs()
    accelerators.choose('auto')
    if finished_run.is_deterministic(workdir):
      gpu_settings.make_deterministic()
    cli.see_devices()
    score_run.ask(workdir, str(_PROTOCOL.value or 'linear,knn'),
                  encoder=str(_ENCODER.value), data_dir=str(_DATA_DIR.value),
                  source=str(_SOURCE.value), console=console)
    cli.see_printed(console)
  except Ending as ending:
    cli.leave(ending)


def _score_file(console: Console) -> None:
  cli.keep_compiled_programs()
  accelerators.choose('auto')
  cli.see_devices()
  score_encoder_file.ask(
      paths.workdir(str(_FILE.value), '--encoder_file'), str(_PROTOCOL.value),
      source=str(_SOURCE.value), data_dir=str(_DATA_DIR.value),
      named=named_flags.chosen(), console=console)
  cli.see_printed(console)


if __name__ == '__main__':
  cli.run(main, _parse)
