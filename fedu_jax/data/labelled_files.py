"""Lists the labelled image files of `data.test`.

`folder:<dir>` has a folder for each class, with images at any depth.
`csv:<file>` has a line for each image.
"""

import csv
import errno
import pathlib
import re
from typing import NamedTuple

from fedu_jax.data import folder_listing
from fedu_jax.data import image_files
from fedu_jax.data.reading_report import shown
from fedu_jax.data.reading_report import unreadable
from fedu_jax.runtime import paths
from fedu_jax.runtime.errors import BadInput

KINDS = 'folder', 'csv'
_SPLITS = 'train', 'test'


class Listed(NamedTuple):
  """Labelled files, in a stable order."""
  root: pathlib.Path
  files: list[pathlib.Path]
  classes: list[str]  # of each file
  splits: list[str]  # of each file, 'train' or 'test'; '' if not said
  absent: list[str]  # files of the CSV that are not there
  passed: list[str]  # files of a folder that are not read, with the reason


def known(test: str) -> bool:
  """Whether a text has the form of `data.test`."""
  kind, _, what = test.partition(':')
  return not test or kind in KINDS and bool(what.strip())


def listed(test: str) -> Listed:
  """Lists the files that `data.test` names.

  Raises:
    BadInput: the folder or file is missing, unreadable or malformed.
  """
  kind, _, what = test.partition(':')
  path = paths.typed(what, f'the path of data.test {kind}')
  return _of_csv(path) if kind == 'csv' else _of_folder(path)


def _of_folder(root: pathlib.Path) -> Listed:
  try:
    found = folder_listing.listed(root, (), image_files.is_image)
  except BadInput as error:
    said = str(error).replace('data.source folder', 'data.test folder')
    said = said.replace('one folder of images for each client',
                        'one folder of images for each class')
    raise BadInput(re.sub(', remove it, or name it in data.leave_out',
                          ', or remove it', said)) from error
  files = [path for mine in found.files for path in mine]
  return Listed(
      root, files, [shown(owner.name) for owner, mine in zip(
          found.owners, found.files) for _ in mine], [''] * len(files), [],
      [f'{shown(x.path.relative_to(root))} ({x.reason})' for x in found.passed
       if not x.folder])


def _is_there(path: pathlib.Path) -> bool:
  """Whether there is such a file.

  Raises:
    BadInput: the system denies looking at it.
  """
  try:
    return path.is_file()
  except OSError as error:
    if error.errno == errno.ENAMETOOLONG:
      return False
    raise unreadable(path, error) from error


def _of_csv(path: pathlib.Path) -> Listed:
  def refuse(complaint):
    return BadInput(f'data.test csv: {shown(path)} {complaint}')
  try:
    if not path.is_file():
      raise refuse('is no file')
    with open(path, encoding='utf-8-sig', newline='') as file:
      table = csv.DictReader(file, skipinitialspace=True)
      names = [x.strip().lower() for x in table.fieldnames or ()]
      table.fieldnames = names
      rows = [(table.line_num, row) for row in table]
  except (OSError, UnicodeError, csv.Error) as error:
    raise refuse(f'cannot be read ({error})') from error
  if 'file' not in names or 'label' not in names:
    raise refuse('must begin with a line of names of columns, with file and '
                 f'label; it begins with {shown(", ".join(names))!r}')
  found = Listed(path.parent, [], [], [], [], [])
  labels: dict[pathlib.Path, str] = {}
  for number, row in rows:
    name, label, split = (
        (row.get(x) or '').strip() for x in ('file', 'label', 'split'))
    if not name or not label:
      raise refuse(f'has no {"label" if name else "file"} in line {number}')
    if 'split' in names and split not in _SPLITS:
      raise refuse(f'has the split {shown(split)!r} in line {number}; it must '
                   'be train or test')
    image = path.parent / name
    if labels.setdefault(image, label) != label:
      raise refuse(f'has two labels for {shown(name)}')
    if not _is_there(image):
      found.absent.append(shown(name))
    else:
      found.files.append(image)
      found.classes.append(shown(label))
      found.splits.append(split)
  if not found.files:
    raise refuse('names no file that is there')
  return found
