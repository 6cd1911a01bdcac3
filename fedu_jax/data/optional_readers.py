"""Formats that are read if an extra of this package is installed."""

from collections.abc import Mapping
import functools
import importlib.util
import pathlib
from typing import NamedTuple

PREFIX = 132  # bytes that identify a format

_HEIC_BRANDS = b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx'


class Reader(NamedTuple):
  """A format.

  Attributes:
    name: the format, for people.
    extra: the extra that reads it: fedu_jax[extra].
    module: the package that the extra brings.
    extensions: of its files, in lower case.
  """
  name: str
  extra: str
  module: str
  extensions: tuple[str, ...]

  @property
  def here(self) -> bool:
    """Whether the extra is installed."""
    return _is_installed(self.module)

  @property
  def nameless(self) -> str:
    """The reason why a file without an extension is not read."""
    return f'without an extension, in {self.name}'


HEIC = Reader('HEIC', 'heic', 'pillow_heif', ('.heic', '.heif', '.hif'))
DICOM = Reader('DICOM', 'dicom', 'pydicom', ('.dcm', '.dicom'))
READERS = HEIC, DICOM


@functools.cache
def _is_installed(module: str) -> bool:
  return importlib.util.find_spec(module) is not None


def of_content(content: bytes) -> Reader | None:
  """Returns the reader of a file that begins so, installed or not."""
  if content[128:PREFIX] == b'DICM':
    return DICOM
  if content[4:8] != b'ftyp':
    return None
  brand = content[8:12]
  general = brand in (b'mif1', b'msf1') and b'hei' in content[16:64]
  return HEIC if brand in _HEIC_BRANDS or general else None


def extensions() -> tuple[str, ...]:
  """The extensions of the formats of which the extra is installed."""
  return tuple(x for reader in READERS if reader.here
               for x in reader.extensions)


def absent(path: pathlib.Path) -> Reader | None:
  """The reader that a file's extension asks for, if it is not installed."""
  for reader in READERS:
    if path.suffix.lower() in reader.extensions and not reader.here:
      return reader
  return None


def lacking(path: pathlib.Path) -> str:
  """The reason why a file is not read if it is of a reader that is absent.

  Args:
    path: a file without an extension, which can be read.

  Returns:
    The reason; '' for any other file.
  """
  with open(path, 'rb') as file:
    reader = of_content(file.read(PREFIX))
  return reader.nameless if reader and not reader.here else ''


def lines(passed: Mapping[str, int]) -> list[str]:
  """Says which extras would read files that were passed over.

  Args:
    passed: reason, such as an extension -> files.
  """
  found = []
  for reader in READERS:
    if count := sum(passed.get(x, 0)
                    for x in (*reader.extensions, reader.nameless)):
      found.append(f'data: {count:,} {reader.name} files were passed over; '
                   f"pip install 'fedu_jax[{reader.extra}]' lets them be read")
  return found
