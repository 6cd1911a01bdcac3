"""Writes the encoder of a run to a file for other programs.

  python -m fedu_jax.export --workdir=/tmp/run --to=encoder.safetensors

The name of the file says the format: .safetensors for PyTorch (torchvision's
and timm's names) and for fedu_jax, .onnx for ONNX Runtime, .stablehlo for JAX
without fedu_jax. The images of the run are not needed.
"""

from absl import flags
from absl import logging

from fedu_jax.encoders import export_file
from fedu_jax.runtime import accelerators
from fedu_jax.runtime import cli
from fedu_jax.runtime import durable_files
from fedu_jax.runtime import host_memory
from fedu_jax.runtime import paths
from fedu_jax.runtime import signals
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import Ending, Unsaved
from fedu_jax.training import saved_encoder

_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of a run that has saved a checkpoint.')
_TO = flags.DEFINE_string(
    'to', None, 'The file to write, which must not exist yet: '
    f'*{", *".join(export_file.FORMATS)}.')
_ENCODER = flags.DEFINE_string(
    'encoder', 'federation', 'Which network: federation, untrained, or '
    'alone<number of a client> if clients trained alone too.')
_PROJECTOR = flags.DEFINE_bool(
    'projector', False, "Whether features are the projector's output, and not "
    'those below it.')
_LICENCE = flags.DEFINE_string(
    'licence', '', 'The licence of the weights, which the file will state. '
    "fedu_jax's own licence is that of its code alone.")
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', "The folder of TFDS's data sets; only for a run of an "
    'earlier version, which did not record the size of its images.')
_SOURCE = flags.DEFINE_string(
    'source', '', "Where the run's data is now; as --data_dir.")


def _parse(argv: list[str]) -> list[str]:
  return cli.parse(argv, about=__doc__)


def main(_: list[str]) -> None:
  """Writes the file, or exits with one line that says why not."""
  logging.set_verbosity(logging.ERROR)
  signals.listen()
  for flag in _WORKDIR, _TO:
    if flag.value is None:
      cli.refuse(f'--{flag.name} is missing; for example --workdir=/tmp/run '
                 '--to=encoder.safetensors')
  console = terminal.console()
  try:
    path = paths.workdir(str(_TO.value), '--to')
    to_bytes = export_file.writer(path)
    workdir = paths.workdir(str(_WORKDIR.value))
    accelerators.choose('auto')
    cli.see_devices()
    with host_memory.watched('nothing of the run is lost: end other programs'):
      encoder = saved_encoder.of_run(
          workdir, encoder=str(_ENCODER.value),
          projector=bool(_PROJECTOR.value), data_dir=str(_DATA_DIR.value),
          source=str(_SOURCE.value), licence=str(_LICENCE.value),
          console=console)
      try:
        export_file.write(path, encoder, to_bytes)
      except OSError as error:
        raise Unsaved(
            f'{path} could not be written ({durable_files.reason(error)}): '
            f'{durable_files.advice(error)}, and export again') from error
    about = encoder.about
    terminal.say(console, (
        f'{path}: {about.encoder} after {about.rounds} rounds, '
        f'{about.dtype} [N, {", ".join(map(str, about.shape))}] -> '
        f'{about.features} features; licence of the weights: '
        f'{about.licence}'))
    cli.see_printed(console)
  except Ending as ending:
    cli.leave(ending)


if __name__ == '__main__':
  cli.run(main, _parse)
