"""What names of files and folders say of their contents."""

import os
import pathlib
import re

from fedu_jax.data.reading_report import shown

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
# A folder is named like a test split if its name has a word of _TESTS and all
# its words are in _TESTS or _BESIDE: 'Test Set', 'val2017', 'x_test'.
_TESTS = frozenset((
    'test', 'tests', 'testing', 'testset', 'val', 'valid', 'validate',
    'validation', 'eval', 'evaluation', 'holdout', 'heldout'))
_BESIDE = frozenset((
    'set', 'split', 'data', 'dataset', 'images', 'image', 'imgs', 'img', 'x'))
_EXTENSION = r'\.[^.\s]{1,12}$'


def is_hidden(entry: os.DirEntry) -> bool:
  """Whether a file or folder is hidden or was created by a system."""
  name = entry.name.lower()
  return name.startswith('.') or name in (
      _SYSTEM_FOLDERS if entry.is_dir() else _SYSTEM_FILES)


def like_a_test(name: str) -> bool:
  """Whether a folder has a name that is usual for test images."""
  name = re.sub('(hold|held)[ _-]out', r'\1out', name.lower())
  words = set(re.findall('[a-z]+', name))
  return bool(words & _TESTS) and words <= _TESTS | _BESIDE


def nameless(path: pathlib.Path) -> bool:
  """Whether a file's name does not tell its format."""
  return path.suffix[1:].isdigit() or not path.suffix


def named(path: pathlib.Path) -> str:
  """Names a file's format by its extension."""
  return shown(path.suffix.lower()) if re.search(_EXTENSION, path.name) else (
      'without an extension, and no image')
