"""Writes an encoder to a file, in the format that the file's name says."""

from collections.abc import Callable
import importlib
import pathlib

from fedu_jax.encoders import about as about_lib
from fedu_jax.encoders.encoder import Encoder
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput

# Suffix -> our module of the format, and the package that it needs.
FORMATS = {'.safetensors': ('weights_file', 'safetensors'),
           '.onnx': ('onnx_file', 'onnx'),
           '.stablehlo': ('stablehlo_file', 'jax')}


def writer(path: pathlib.Path) -> Callable[[Encoder], bytes]:
  """Returns the function that makes the contents of a file.

  Args:
    path: the file to write.

  Raises:
    BadInput: its suffix is none of FORMATS, the package is not installed, there
      is such a file already, or no folder for it.
  """
  if path.suffix not in FORMATS:
    raise BadInput(f'--to is {path}: its name must end in '
                   f'{", ".join(FORMATS)}')
  check_free(path)
  module, package = FORMATS[path.suffix]
  try:
    importlib.import_module(package)
  except ImportError as error:
    raise BadInput(f'{path.suffix} needs the package {package} ({error}): '
                   "pip install 'fedu_jax[export]'") from error
  made: Callable[[Encoder], bytes] = importlib.import_module(
      f'fedu_jax.encoders.{module}').to_bytes
  return made


def check_free(path: pathlib.Path, flag: str = '--to') -> None:
  """Raises BadInput if a file exists, or has no folder to be written to."""
  if path.exists():
    raise BadInput(f'{path} exists: remove it, or choose another {flag}')
  if not path.parent.is_dir():
    raise BadInput(f'there is no folder {path.parent}: make it, or choose '
                   f'another {flag}')


def write(path: pathlib.Path, encoder: Encoder,
          to_bytes: Callable[[Encoder], bytes]) -> None:
  """Writes an encoder, as a whole or not at all.

  A .stablehlo file has no place for the record, which is then in a file beside
  it, with .json at the end of its name.

  Args:
    path: the file.
    encoder: the encoder.
    to_bytes: the function that `writer` returned for the path.

  Raises:
    OSError: it cannot be written.
  """
  content = to_bytes(encoder)
  if path.suffix == '.stablehlo':
    durable_files.write(path.with_name(path.name + '.json'),
                        (about_lib.to_json(encoder.about) + '\n').encode())
  durable_files.write(path, content)
