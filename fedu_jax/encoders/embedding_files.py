"""Files of embeddings: one row for each image, in parquet, npz or csv."""

from collections.abc import Callable, Iterator, Sequence
import csv
import importlib
import os
import pathlib
from typing import Any, NamedTuple
import zipfile

import numpy as np

from fedu_jax.encoders import about as about_lib
from fedu_jax.encoders.about import About
from fedu_jax.runtime import durable_files
from fedu_jax.runtime.errors import BadInput

_READ = 2048  # rows that `read` yields at a time


class Part(NamedTuple):
  """Some rows of a file of embeddings."""
  names: Sequence[str]
  clients: Sequence[str]  # '' if unknown
  labels: Sequence[int]  # -1 if unknown
  features: np.ndarray  # [n, D] f32


Parts = Callable[[], Iterator[Part]]
Writer = Callable[[pathlib.Path, Parts, About], None]


def writer(path: pathlib.Path) -> Writer:
  """Returns the function that writes a file of a name, as a whole.

  Raises:
    BadInput: the suffix is none of FORMATS, or pyarrow is not installed.
  """
  if path.suffix not in FORMATS:
    raise BadInput(f'--to is {path}: its name must end in '
                   f'{", ".join(FORMATS)}')
  if path.suffix == '.parquet':
    _pyarrow()

  def write(path: pathlib.Path, parts: Parts, about: About) -> None:
    part = path.with_name(path.name + durable_files.PART)
    try:
      FORMATS[path.suffix](part, parts, about)
      durable_files.sync(part)
      os.replace(part, path)
      durable_files.sync(path.parent)
    except OSError:
      durable_files.remove(part)
      raise
  return write


def read(path: pathlib.Path) -> Iterator[Part]:
  """Yields the rows of a file of embeddings, some thousand at a time.

  Raises:
    BadInput: the file is missing, damaged, or of another kind.
  """
  try:
    yield from {'.parquet': _read_parquet, '.npz': _read_npz,
                '.csv': _read_csv}[path.suffix](path)
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise BadInput(f'{path} is not a readable file of embeddings ({error}): '
                   'write it again with fedu_jax.embed') from error


def _pyarrow() -> Any:
  try:
    importlib.import_module('pyarrow.parquet')
    return importlib.import_module('pyarrow')
  except ImportError as error:
    raise BadInput(f'.parquet needs the package pyarrow ({error}): pip install '
                   "'fedu_jax[embed]', or choose .npz or .csv") from error


def _write_parquet(path: pathlib.Path, parts: Parts, about: About) -> None:
  """Columns name, client and label (null if unknown), and features, [D] f32.
  """
  arrow = _pyarrow()
  schema = arrow.schema([
      ('name', arrow.string()), ('client', arrow.string()),
      ('label', arrow.int32()),
      ('features', arrow.list_(arrow.float32(), about.features))],
      metadata={'fedu_jax': about_lib.to_json(about)})
  with arrow.parquet.ParquetWriter(path, schema) as file:
    for part in parts():
      file.write_table(arrow.table([
          arrow.array(part.names, arrow.string()),
          arrow.array([x or None for x in part.clients], arrow.string()),
          arrow.array([None if x < 0 else x for x in part.labels],
                      arrow.int32()),
          arrow.FixedSizeListArray.from_arrays(
              arrow.array(part.features.reshape(-1)), about.features)],
          schema=schema))


def _read_parquet(path: pathlib.Path) -> Iterator[Part]:
  arrow = _pyarrow()
  with arrow.parquet.ParquetFile(path) as file:
    for batch in file.iter_batches(_READ):
      flat = batch.column('features').flatten().to_numpy(zero_copy_only=False)
      yield Part(batch.column('name').to_pylist(),
                 [x or '' for x in batch.column('client').to_pylist()],
                 [-1 if x is None else x
                  for x in batch.column('label').to_pylist()],
                 flat.reshape(len(batch), -1))


def _write_npz(path: pathlib.Path, parts: Parts, about: About) -> None:
  """Arrays names, clients, labels (-1 if unknown), features [N, D], about."""
  count, widths = 0, [1, 1]
  for part in parts():
    count += len(part.names)
    widths = [max(width, *map(len, texts)) for width, texts in zip(
        widths, (part.names, part.clients))]
  arrays: dict[str, tuple[str, tuple[int, ...], Callable[[Part], Any]]] = {
      'names': (f'<U{widths[0]}', (), lambda part: part.names),
      'clients': (f'<U{widths[1]}', (), lambda part: part.clients),
      'labels': ('<i4', (), lambda part: part.labels),
      'features': ('<f4', (about.features,), lambda part: part.features)}
  with zipfile.ZipFile(path, 'w') as archive:
    for name, (dtype, shape, column) in arrays.items():
      # A ZipInfo that has no time of its own: equal rows give equal bytes.
      with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w',
                        force_zip64=True) as file:
        np.lib.format.write_array_header_2_0(file, {
            'descr': dtype, 'fortran_order': False, 'shape': (count, *shape)})
        for part in parts():
          file.write(np.ascontiguousarray(column(part), dtype).tobytes())
    with archive.open(zipfile.ZipInfo('about.npy'), 'w') as file:
      np.lib.format.write_array(file, np.array(about_lib.to_json(about)))


def _read_npz(path: pathlib.Path) -> Iterator[Part]:
  with np.load(path, allow_pickle=False) as file:
    names, clients, labels, features = (file[name] for name in (
        'names', 'clients', 'labels', 'features'))
  for i in range(0, len(names), _READ):
    rows = slice(i, i + _READ)
    yield Part(names[rows].tolist(), clients[rows].tolist(),
               labels[rows].tolist(), features[rows])


def _write_csv(path: pathlib.Path, parts: Parts, about: About) -> None:
  """Columns name, client, label (empty if unknown), and f0, f1, ..."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    rows = csv.writer(file)
    rows.writerow(['name', 'client', 'label',
                   *(f'f{i}' for i in range(about.features))])
    for part in parts():
      for name, client, label, features in zip(*part):
        rows.writerow([name, client, '' if label < 0 else label,
                       *(f'{x:.9g}' for x in features.tolist())])


def _read_csv(path: pathlib.Path) -> Iterator[Part]:
  with open(path, newline='', encoding='utf-8') as file:
    rows = csv.reader(file)
    if next(rows)[:3] != ['name', 'client', 'label']:
      raise ValueError('its columns are others')
    for row in rows:
      yield Part([row[0]], [row[1]], [int(row[2] or -1)],
                 np.array([row[3:]], np.float32))


FORMATS: dict[str, Writer] = {
    '.parquet': _write_parquet, '.npz': _write_npz, '.csv': _write_csv}
