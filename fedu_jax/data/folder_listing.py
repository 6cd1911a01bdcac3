"""Lists the images in a folder that has one folder for each client.

Clients' folders are directly in it, or deeper by a number that is set, or are
all folders that have images.

It opens only files without an extension. A folder that cannot be listed is an
error: otherwise its images would be missing from the run unnoticed.
"""

import collections
from collections.abc import Callable, Iterator
import fnmatch
import os
import pathlib
import stat
from typing import NamedTuple

from fedu_jax.data import folder_names
from fedu_jax.data import optional_readers
from fedu_jax.data.reading_report import counted
from fedu_jax.data.reading_report import shown
from fedu_jax.data.reading_report import unreadable
from fedu_jax.runtime.errors import BadInput

LEAF = 'leaf'
_NOWHERE = "in no client's folder"
_OURS = '.fedu_jax-'  # the prefix of our own cache files
_ELSEWHERE = 'link to a folder that is read elsewhere'


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
           is_image: Callable[[pathlib.Path, bool], bool],
           depth: str = '1') -> Listing:
  """Lists all clients' folders, at any depth.

  Each folder at `depth`, and each link to one, is a client. Hidden and known
  system folders and files are passed over. A link to a folder is followed,
  unless that folder is read elsewhere, is left out, or contains the link.

  Args:
    root: the folder of the clients' folders.
    leave_out: names of folders at any depth, or paths from the root, that are
      not read; * stands for any text and ? for any letter.
    is_image: (path, by_content) -> whether a file is an image by its name, or
      by its first bytes if by_content is True.
    depth: '1' if the clients' folders are in the root, '2' if they are in
      folders in the root, and so on; or `LEAF`: each folder that has images
      directly in it is a client with these.

  Returns:
    The listing.

  Raises:
    BadInput: a folder cannot be listed, a link has no target, there is no
      client, a client has no images, or no folder matches `leave_out`.
  """
  return _Lister(root, leave_out, is_image).listed(depth)


class _Lister:
  """Lists one root folder."""

  def __init__(self, root, leave_out, is_image):
    self._root, self._is_image = root, is_image
    self._leave_out = dict.fromkeys(leave_out, False)  # True: a folder matched
    self._left_out: list[str] = []  # real paths of folders
    self._seen: set[tuple[int, int]] = set()  # folders that were listed
    self._passed: list[Passed] = []
    self._tests: list[pathlib.Path] = []

  def listed(self, depth: str) -> Listing:
    self._check_root()
    twice: list[pathlib.Path] = []
    if depth == LEAF:
      files = self._leaves()
    else:
      owners, twice = self._owners(int(depth))
      files = self._files(owners)
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
    return Listing(list(files), list(files.values()), self._passed,
                   sorted(self._tests), twice)

  def _check_root(self) -> None:
    try:
      is_folder = self._root.is_dir()
    except OSError as error:
      raise unreadable(self._root, error) from error
    if not is_folder:
      raise BadInput('data.source folder: there is no folder '
                     f'{shown(self._root)}')

  def _files(self, tops: list[pathlib.Path]
             ) -> dict[pathlib.Path, list[pathlib.Path]]:
    """Lists the files below each of these folders."""
    files: dict[pathlib.Path, list[pathlib.Path]] = {x: [] for x in tops}
    # Links come last, so that a folder is read at its own path.
    links = [(top, link) for top in tops
             for link in self._walk(top, files[top])]
    for top, link in links:  # the loop appends to this list
      if reason := self._not_followed(link):
        self._pass(link, reason, True)
      else:
        links += [(top, x) for x in self._walk(link, files[top], True)]
    return files

  def _leaves(self) -> dict[pathlib.Path, list[pathlib.Path]]:
    """Lists the files directly in each folder below the root that has some."""
    found = self._files([self._root])[self._root]
    files: dict[pathlib.Path, list[pathlib.Path]] = {}
    for path in found:
      if path.parent == self._root:
        self._pass(path, _NOWHERE)
      else:
        files.setdefault(path.parent, []).append(path)
    if not files:
      raise self._no_clients(LEAF)
    return dict(sorted(files.items()))

  def _owners(self, depth: int
              ) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Finds the clients' folders, and which of them are links to others."""
    owners, links = [self._root], list[pathlib.Path]()
    for _ in range(depth):
      above, owners, links = owners + links, [], []
      for folder in above:
        for path, kind in self._entries(folder):
          if kind == 'folder':
            owners.append(path)
          elif kind != 'link':
            self._pass(path, _NOWHERE if self._is_image(path, False)
                       else folder_names.named(path))
          elif reason := self._not_followed(path):
            self._pass(path, reason, True)
          else:
            links.append(path)
    known, twice = {_identity(path) for path in owners}, []
    for path in links:
      if _identity(path) in known:
        twice.append(path)
      known.add(_identity(path))
      owners.append(path)
    if not owners:
      raise self._no_clients(str(depth))
    return sorted(owners), twice

  def _no_clients(self, depth: str) -> BadInput:
    at = {'1': '', LEAF: ' below it'}.get(
        depth, f' at data.client_depth={depth}')
    mend = '' if depth == '1' else (
        ': set data.client_depth to the depth of the clients\' folders')
    return BadInput(f'data.source folder: {shown(self._root)} has no folders '
                    f'that are read{at}; it needs one folder of images for '
                    f'each client{self._instead(self._root)}{mend}')

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
      if folder != self._root and folder_names.like_a_test(folder.name):
        self._tests.append(folder)
      for path, kind in self._entries(folder):
        if kind == 'folder':
          waiting.append(path)
        elif kind == 'link':
          links.append(path)
        elif self._is_image(path, False) or (
            kind == 'file' and folder_names.nameless(path)
            and self._is_image(path, True)):
          files.append(path)
        else:
          self._pass(path, kind == 'file' and folder_names.nameless(path)
                     and optional_readers.lacking(path)
                     or folder_names.named(path))
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
        hidden = folder_names.is_hidden(entry)
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


def _identity(folder: pathlib.Path) -> tuple[int, int]:
  try:
    found = folder.stat()
  except OSError as error:
    raise unreadable(folder, error) from error
  return found.st_dev, found.st_ino


def _holds(folder: str, path: str) -> bool:
  return path == folder or path.startswith(folder.rstrip('/') + '/')
