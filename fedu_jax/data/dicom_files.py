"""Decodes DICOM files by pydicom, without their texts.

Only elements that say how to show pixels are read. Elements of patients,
studies and devices are never read, and no message has a value of a file.
"""

import io
from typing import Any

import numpy as np

from fedu_jax.data.image_depth import Unreadable

# How a stored value becomes a grey: `file` takes the file's window if it has
# one, `full` the whole range, and '<centre>,<width>' one window for all files.
WINDOWS = 'file', 'full'

_TAGS = ('SamplesPerPixel', 'PhotometricInterpretation', 'PlanarConfiguration',
         'NumberOfFrames', 'Rows', 'Columns', 'BitsAllocated', 'BitsStored',
         'HighBit', 'PixelRepresentation', 'RescaleSlope', 'RescaleIntercept',
         'WindowCenter', 'WindowWidth', 'VOILUTFunction', 'PixelData',
         'ExtendedOffsetTable', 'ExtendedOffsetTableLengths')
_DAMAGED = 'a damaged DICOM file'


def window_of(text: str) -> tuple[float, float] | None:
  """Reads '<centre>,<width>'; None if it is no such text."""
  try:
    centre, width = map(float, text.split(','))
  except ValueError:
    return None
  return (centre, width) if 1 <= width < 1e9 and abs(centre) < 1e9 else None


def header(content: bytes) -> Any:
  """Reads the elements of `_TAGS`.

  Raises:
    Unreadable: the file is damaged or has no image.
  """
  import pydicom
  try:
    found = pydicom.dcmread(io.BytesIO(content), specific_tags=list(_TAGS))
    if 'PixelData' in found:
      int(found.Rows) * int(found.Columns) * int(found.BitsStored)
      return found
  except MemoryError:
    raise
  except Exception:  # a damaged file can raise any error, with its values
    raise Unreadable(_DAMAGED) from None
  raise Unreadable('a DICOM file without an image')


def frames(found: Any) -> int:
  """The number of frames of a file."""
  return int(found.get('NumberOfFrames') or 1)


def pixels(found: Any, window: str, dtype: np.dtype) -> np.ndarray:
  """Decodes the first frame.

  Args:
    found: the result of `header`.
    window: see `WINDOWS`. Colours have no window.
    dtype: uint8 or uint16.

  Returns:
    The image, [H, W, 1 or 3], of which full scale is that of `dtype`.

  Raises:
    Unreadable: the file is damaged, or of a kind that is not read.
  """
  from pydicom import pixels as dicom_pixels
  try:
    syntax = found.file_meta.TransferSyntaxUID
    colours = str(found.PhotometricInterpretation)
    compressed = syntax.is_compressed
    readable = not compressed or dicom_pixels.get_decoder(syntax).is_available
  except Exception:
    raise Unreadable(_DAMAGED) from None
  if not readable:
    raise Unreadable(f'DICOM compressed as {syntax.name}')
  if colours == 'PALETTE COLOR':
    raise Unreadable('DICOM with a palette of colours')
  try:
    stored = dicom_pixels.pixel_array(found, index=0)
    unit = (_grey(found, stored, window) if stored.ndim == 2
            else stored / (2**int(found.BitsStored) - 1))
    unit = 1 - unit if colours == 'MONOCHROME1' else unit
    full = np.iinfo(dtype).max
    image = np.rint(np.clip(unit, 0, 1) * full).astype(dtype)
    return image.reshape(*image.shape[:2], -1)
  except (MemoryError, Unreadable):
    raise
  except Exception:
    raise Unreadable(_DAMAGED) from None


def _grey(found: Any, stored: np.ndarray, window: str) -> np.ndarray:
  """Values [H, W] in the file's unit, by the window, from 0 to 1.

  Raises:
    Unreadable: the rescale or the window is no finite number.
  """
  slope = float(found.get('RescaleSlope') or 1)
  intercept = float(found.get('RescaleIntercept') or 0)
  values = stored * slope + intercept
  exact, sigmoid = (str(found.get('VOILUTFunction', '')) == x
                    for x in ('LINEAR_EXACT', 'SIGMOID'))
  chosen = window_of(window)
  if window == 'file':
    first = [np.atleast_1d(found[x].value)[0] for x in (
        'WindowCenter', 'WindowWidth') if found.get(x) not in (None, '')]
    if len(first) == 2 and (float(first[1]) > 0 if exact or sigmoid
                            else float(first[1]) >= 1):
      chosen = float(first[0]), float(first[1])
  if not np.isfinite([slope, intercept, *(chosen or ())]).all():
    raise Unreadable('a DICOM file whose rescale or window is no finite number')
  if chosen is None:
    bits = int(found.BitsStored)
    low = -2**(bits - 1) if found.PixelRepresentation else 0
    ends = sorted(x * slope + intercept for x in (low, low + 2**bits - 1))
    return (values - ends[0]) / (ends[1] - ends[0])
  centre, width = chosen
  # The functions of DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3.
  if window == 'file' and sigmoid:
    return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -99, 99)))
  if window == 'file' and exact:
    return (values - centre) / width + 0.5
  return ((values - (centre - 0.5)) / max(width - 1, 1e-6)) + 0.5
