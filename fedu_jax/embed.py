"""Writes the features of images to a file: a row for each image.

  python -m fedu_jax.embed --workdir=/tmp/run --images=/data/photos \\
      --to=embeddings.parquet

A killed process goes on when it is started again in the same way. Import
nothing from here: `fedu_jax.embed` is also the name of a function.
"""

import pathlib

from absl import flags
from absl import logging
from rich.console import Console

from fedu_jax.data import image_files
from fedu_jax.data import reading_progress
from fedu_jax.encoders import embedding
from fedu_jax.encoders import embedding_files
from fedu_jax.encoders import embedding_report
from fedu_jax.encoders import export_file
from fedu_jax.encoders import image_rows
from fedu_jax.encoders import report_page
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import cli
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import paths
from fedu_jax.runtime import signals
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput, Ending, Unsaved
from fedu_jax.training import named_flags
from fedu_jax.training import saved_encoder

_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of a run that has saved a checkpoint.')
_FILE = flags.DEFINE_string(
    'encoder_file', None, 'In place of --workdir: a .safetensors file that '
    'fedu_jax.export wrote, or another one together with --network.')
_IMAGES = flags.DEFINE_string(
    'images', None, 'A folder of image files in any layout, an npz file, or a '
    'data source such as tfds:cifar10.')
_TO = flags.DEFINE_string(
    'to', None, 'The file to write, which must not exist yet: '
    f'*{", *".join(embedding_files.FORMATS)}.')
_ENCODER = flags.DEFINE_string(
    'encoder', 'federation', 'Which network of a run: federation, untrained, '
    'or alone<number of a client> if clients trained alone too.')
_PROJECTOR = flags.DEFINE_bool(
    'projector', False, "Whether features are the projector's output, and not "
    'those below it.')
_DEPTH = flags.DEFINE_integer(
    'depth', 0, 'The bits of images of more than 8 bits, if their files do not '
    "say, 8 to 16; 0 for the run's data.depth, or for as many as a folder's "
    'largest value needs.', lower_bound=0, upper_bound=16)
_REPORT = flags.DEFINE_string(
    'report', None, 'Also writes a page to look at: an HTML file with a map, '
    'neighbours, near-duplicates and outliers. If the file of --to exists, its '
    'rows are shown.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', "The folder of TFDS's data sets; if not given, TFDS's own "
    'choice: $TFDS_DATA_DIR or ~/tensorflow_datasets.')


def _parse(argv: list[str]) -> list[str]:
  return cli.parse(argv, about=__doc__)


def main(_: list[str]) -> None:
  """Writes the file, or exits with one line that says why not."""
  logging.set_verbosity(logging.ERROR)
  signals.listen()
  if (_WORKDIR.value is None) == (_FILE.value is None):
    cli.refuse('give either --workdir=<a run> or --encoder_file=<a file>')
  for flag in _IMAGES, _TO:
    if flag.value is None:
      cli.refuse(f'--{flag.name} is missing; for example --images=/data/photos '
                 '--to=embeddings.parquet')
  if _DEPTH.value not in image_files.DEPTHS:
    cli.refuse(f'--depth is {_DEPTH.value}: choose 0, or 8 to 16')
  console = terminal.console()
  try:
    path = paths.workdir(str(_TO.value), '--to')
    embedding_files.writer(path)  # refuses other names, before anything is read
    page = _page()
    shown_only = page is not None and path.exists()
    if not shown_only:
      export_file.check_free(path)
    cli.keep_compiled_programs()
    accelerators.choose('auto')
    cli.see_devices()
    with host_memory.watched('what is embedded stays: end other programs, and '
                             'start again'):
      encoder = _encoder()
      rows = image_rows.of(str(_IMAGES.value), encoder.about,
                           str(_DATA_DIR.value))
      try:
        if not shown_only:
          _embed(encoder, rows, path, console)
        if page is not None:
          with console.status('drawing the page'):
            count = embedding_report.write(page, path, rows)
          terminal.say(console, f'{page}: {count:,} images')
      except OSError as error:
        raise Unsaved(
            f'{error.filename or path} could not be written '
            f'({durable_files.reason(error)}): {durable_files.advice(error)}, '
            'and start again; what is embedded stays') from error
    cli.see_printed(console)
  except Ending as ending:
    cli.leave(ending)


def _page() -> pathlib.Path | None:
  """The page that the flags name; refused before anything is read."""
  if _REPORT.value is None:
    return None
  page = paths.workdir(str(_REPORT.value), '--report')
  if page.suffix != '.html':
    raise BadInput(f'--report is {page}: its name must end in .html')
  export_file.check_free(page, '--report')
  report_page.template()  # says now that jinja2 is missing
  return page


def _embed(encoder: Encoder, rows: image_rows.Rows, path: pathlib.Path,
           console: Console) -> None:
  """Writes the file of embeddings, and says how many rows it has."""
  with reading_progress.shown(console) as progress:
    count, skipped = embedding.embed(
        encoder, rows, path, progress,
        lambda text: terminal.say(console, text))
  left = skipped + len(rows.passed)
  terminal.say(console, f'{path}: {count:,} images, '
               f'{encoder.about.features} features each' + (
                   f'; {left:,} files are left out, see '
                   f'{path.name}.skipped.json' if left else ''))


def _encoder() -> Encoder:
  """Loads the encoder that the flags name."""
  named = str(_FILE.value if _WORKDIR.value is None else _WORKDIR.value)
  encoder = saved_encoder.load(named, encoder=str(_ENCODER.value),
                               projector=bool(_PROJECTOR.value),
                               named=named_flags.chosen())
  return encoder.with_depth(_DEPTH.value) if _DEPTH.value else encoder


if __name__ == '__main__':
  cli.run(main, _parse)
