"""Lists the images in a folder that has one folder for each client.

It opens only files without an extension. A folder that cannot be listed is an
error: otherwise its images would be missing from the run unnoticed.
"""

import collections
from collections.abc import Callable, Iterator
import fnmatch
import os
import pathlib
import re
import stat
from typing import NamedTuple

from fedu_jax.data.reading_report import counted, shown, unreadable
from fedu_jax.runtime.errors import BadInput

# Folders that systems, servers and desktops create, in lower case. Folders with
# a leading dot are always passed over.
_SYSTEM_FOLDERS = frozenset((
    '@eadir', '@recycle', '@recently-snapshot', '@sharebin', '@sharesnap',
    '@__thumb', '@tmp', '#recycle', '#snapshot', '~snapshot', '__macosx',
    '__pycache__', '$recycle.bin', 'recycler', 'recycled', 'lost+found',
    'lost.dir', 'found.000', 'system volume information',
    'network trash folder', 'temporary items', 'desktop db', 'desktop df'))
_SYSTEM_FILES = frozenset((
    'thumbs.db', 'ehthumbs.db', 'ehthumbs_vista.db', 'desktop.ini', 'icon\r',
    'desktop db', 'desktop df'))
_OURS = '.fedu_jax-'  # the prefix of our own cache files
# A folder is named like a test split if its name has a word of _TESTS and all
# its words are in _TESTS or _BESIDE: 'Test Set', 'val2017', 'x_test'.
_TESTS = frozenset((
    'test', 'tests', 'testing', 'testset', 'val', 'valid', 'validate',
    'validation', 'eval', 'evaluation', 'holdout', 'heldout'))
_BESIDE = frozenset((
    'set', 'split', 'data', 'dataset', 'images', 'image', 'imgs', 'img', 'x'))
_ELSEWHERE = 'link to a folder that is read elsewhere'
_EXTENSION = r'\.[^.\s]{1,12}$'


class Passed(NamedTuple):
  """A file that is not read, or a folder that is not listed."""
  path: pathlib.Path
  reason: str
  folder: bool = False


class Listing(NamedTuple):
  """The contents of a folder of images."""
  owners: list[pathlib.Path]  # the clients' folders, sorted
  files: list[list[pathlib.Path]]  # for each owner, the files to read, sorted
  passed: list[Passed]
  tests: list[pathlib.Path]  # folders that are read but named like a test split
  twice: list[pathlib.Path]  # owners that are links to other owners' folders


def listed(root: pathlib.Path, leave_out: tuple[str, ...],
           is_image: Callable[[pathlib.Path, bool], bool]) -> Listing:
  """Lists all clients' folders, at any depth.

  Each folder in the root, and each link to one, is a client. Hidden and known
  system folders and files are passed over. A link to a folder is followed,
  unless that folder is read elsewhere, is left out, or contains the link.

  Args:
    root: the folder of the clients' folders.
    leave_out: names of folders at any depth, or paths from the root, that are
      not read; * stands for any text and ? for any letter.
    is_image: (path, by_content) -> whether a file is an image by its name, or
      by its first bytes if by_content is True.

  Returns:
    The listing.

  Raises:
    BadInput: a folder cannot be listed, a link has no target, there is no
      client, a client has no images, or no folder matches `leave_out`.
  """
  return _Lister(root, leave_out, is_image).listed()


class _Lister:
  """Lists one root folder."""

  def __init__(self, root, leave_out, is_image):
    self._root, self._is_image = root, is_image
    self._leave_out = dict.fromkeys(leave_out, False)  # True: a folder matched
    self._left_out: list[str] = []  # real paths of folders
    self._seen: set[tuple[int, int]] = set()  # folders that were listed
    self._passed: list[Passed] = []
    self._tests: list[pathlib.Path] = []

  def listed(self) -> Listing:
    owners, twice = self._owners()
    files: dict[pathlib.Path, list[pathlib.Path]] = {x: [] for x in owners}
    # Links come last, so that a folder is read at its own path.
    links = [(owner, link) for owner in owners
             for link in self._walk(owner, files[owner])]
    for owner, link in links:  # the loop appends to this list
      if reason := self._not_followed(link):
        self._pass(link, reason, True)
      else:
        links += [(owner, x) for x in self._walk(link, files[owner], True)]
    for name, met in self._leave_out.items():
      if not met:
        raise BadInput(f'data.leave_out names {name!r}, and no folder in '
                       f'{shown(self._root)} has this name: correct it')
    for owner, mine in files.items():
      mine.sort()
      if not mine:
        raise BadInput(f'data.source folder: {shown(owner)} has no images: '
                       f'add some, remove it, or name it '
                       f'in data.leave_out{self._instead(owner)}')
    return Listing(owners, list(files.values()), self._passed,
                   sorted(self._tests), twice)

  def _owners(self) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Finds the clients' folders, and which of them are links to others."""
    try:
      is_folder = self._root.is_dir()
    except OSError as error:
      raise unreadable(self._root, error) from error
    if not is_folder:
      raise BadInput('data.source folder: there is no folder '
                     f'{shown(self._root)}')
    owners, links = [], []
    for path, kind in self._entries(self._root):
      if kind == 'folder':
        owners.append(path)
      elif kind == 'link':
        links.append(path)
      else:
        self._pass(path, "in no client's folder"
                   if self._is_image(path, False) else _named(path))
    known, twice = {_identity(path) for path in owners}, []
    for path in links:
      if reason := self._not_followed(path):
        self._pass(path, reason, True)
        continue
      if _identity(path) in known:
        twice.append(path)
      known.add(_identity(path))
      owners.append(path)
    if not owners:
      raise BadInput(f'data.source folder: {shown(self._root)} has no folders '
                     'that are read; it needs one folder of images for each '
                     f'client{self._instead(self._root)}')
    return sorted(owners), twice

  def _walk(self, top: pathlib.Path, files: list[pathlib.Path],
            linked: bool = False) -> list[pathlib.Path]:
    """Adds the files below `top` to `files`; returns the links to folders."""
    links, waiting = [], [top]
    while waiting:
      folder = waiting.pop()
      number = _identity(folder)
      if linked and number in self._seen:
        self._pass(folder, _ELSEWHERE, True)
        continue
      self._seen.add(number)
      if _like_a_test(folder.name):
        self._tests.append(folder)
      for path, kind in self._entries(folder):
        if kind == 'folder':
          waiting.append(path)
        elif kind == 'link':
          links.append(path)
        elif self._is_image(path, False) or (
            kind == 'file' and _nameless(path) and self._is_image(path, True)):
          files.append(path)
        else:
          self._pass(path, _named(path))
    return links

  def _entries(self, folder: pathlib.Path
               ) -> Iterator[tuple[pathlib.Path, str]]:
    """Lists a folder, without what is passed over.

    Yields:
      Each path, and 'folder', 'file', 'link' (to a folder), or 'other'.
    """
    try:
      with os.scandir(folder) as found:
        entries = sorted(found, key=lambda x: x.name)
    except OSError as error:
      raise unreadable(folder, error) from error
    for entry in entries:
      path = folder / entry.name
      if entry.name.startswith(_OURS):
        continue
      try:
        hidden = _is_hidden(entry)
        # Not for hidden entries: a hidden link without a target is no error.
        mode = 0 if hidden else entry.stat().st_mode
        inside = entry.is_dir(follow_symlinks=False)
      except OSError as error:
        raise unreadable(path, error) from error
      if hidden:
        self._pass(path, 'hidden or system',
                   inside)
      elif not stat.S_ISDIR(mode):
        yield path, 'file' if stat.S_ISREG(mode) else 'other'
      elif self._is_left_out(path):
        self._left_out.append(os.path.realpath(path))
        self._pass(path, 'left out by data.leave_out', True)
      else:
        yield path, 'folder' if inside else 'link'

  def _is_left_out(self, path: pathlib.Path) -> bool:
    names = path.name, path.relative_to(self._root).as_posix()
    met = [pattern for pattern in self._leave_out
           if any(x == pattern or fnmatch.fnmatchcase(x, pattern)
                      for x in names)]
    self._leave_out.update(dict.fromkeys(met, True))
    return bool(met)

  def _not_followed(self, link: pathlib.Path) -> str:
    """The reason why a link to a folder is not followed, or ''."""
    target = os.path.realpath(link)
    if any(_holds(folder, target) for folder in self._left_out):
      return 'link to a folder that is left out'
    if _holds(target, os.path.realpath(link.parent)):
      return 'link to a folder that holds it'
    return _ELSEWHERE if _identity(link) in self._seen else ''

  def _pass(self, path: pathlib.Path, reason: str, folder: bool = False
            ) -> None:
    self._passed.append(Passed(path, reason, folder))

  def _instead(self, owner: pathlib.Path) -> str:
    """Says what a folder without images contains, by kind."""
    found = collections.Counter(
        x.reason for x in self._passed if owner in x.path.parents)
    return f' (in it: {counted(found)})' if found else ''


def _is_hidden(entry: os.DirEntry) -> bool:
  name = entry.name.lower()
  return name.startswith('.') or name in (
      _SYSTEM_FOLDERS if entry.is_dir() else _SYSTEM_FILES)


def _like_a_test(name: str) -> bool:
  """Whether a folder has a name that is usual for test images."""
  name = re.sub('(hold|held)[ _-]out', r'\1out', name.lower())
  words = set(re.findall('[a-z]+', name))
  return bool(words & _TESTS) and words <= _TESTS | _BESIDE


def _identity(folder: pathlib.Path) -> tuple[int, int]:
  try:
    found = folder.stat()
  except OSError as error:
    raise unreadable(folder, error) from error
  return found.st_dev, found.st_ino


def _holds(folder: str, path: str) -> bool:
  return path == folder or path.startswith(folder.rstrip('/') + '/')


def _nameless(path: pathlib.Path) -> bool:
  """Whether a file's name does not tell its format."""
  return path.suffix[1:].isdigit() or not path.suffix


def _named(path: pathlib.Path) -> str:
  """Names a file's format by its extension."""
  return shown(path.suffix.lower()) if re.search(_EXTENSION, path.name) else (
      'without an extension, and no image')
