"""Reports which files of a folder of images were read, and which were not."""

import collections
from collections.abc import Mapping, Sequence
import errno
import os
import pathlib
from typing import Any, NamedTuple

from fedu_jax.data import optional_readers
from fedu_jax.runtime.errors import BadInput

_NAMED = 3  # files that a line names


class Files(NamedTuple):
  """Counts and names of the files of a folder."""
  read: int  # images that were read
  total: int  # all files, without those in folders that were passed over
  pixels: int  # of a side
  asked: bool  # whether the config sets `pixels`
  files: Mapping[str, int] = {}  # reason -> files that were not read
  folders: Mapping[str, int] = {}  # reason -> folders that were passed over
  damaged: tuple[str, ...] = ()  # unreadable images, with the reason
  tests: tuple[str, ...] = ()  # folders that were read, named like a test split
  twice: tuple[str, ...] = ()  # clients' folders that are links to others
  bits: Mapping[str, int] = {}  # client -> the depth of its deep images
  pages: int = 0  # files with several pages or frames
  cropped: int = 0  # images of which more than half was cropped
  unseen: int = 0  # images that a viewer shows in other colours

  def summary(self) -> dict[str, Any]:
    """The counts as plain values, for a run's summary."""
    return {'read': self.read, 'total': self.total, 'pixels': self.pixels,
            'not_read': dict(self.files) | (
                {'damaged': len(self.damaged)} if self.damaged else {}),
            'folders_not_read': dict(self.folders), 'bits': dict(self.bits),
            'first_of_several_pages': self.pages,
            'cropped_by_half': self.cropped,
            'colours_as_stored': self.unseen, 'like_a_test': list(self.tests)}


def lines(files: Files) -> list[str]:
  """Returns a line on what was read and not read, then lines of warnings."""
  size = f'{files.pixels} pixels' + (
      '' if files.asked else ' (the default: data.image_size is 0)')
  parts = [f'data: read {files.read:,} of {files.total:,} files at {size}']
  if files.files:
    parts.append('not read: ' + counted(files.files))
  if files.damaged:
    parts.append(f'skipped {len(files.damaged):,} that cannot be read: '
                 + some(files.damaged))
  if files.folders:
    parts.append('folders passed over: ' + counted(files.folders))
  found = ['; '.join(parts) + (
      '; skipped.json names each' if len(parts) > 1 else '')]
  found += optional_readers.lines(files.files)
  if files.tests:
    names = list(dict.fromkeys(x.rsplit('/', 1)[-1] for x in files.tests))
    found.append(
        'data: folders that are named like a test split are trained on: '
        f'{some(files.tests)}; to leave them out, set '
        f'--config.data.leave_out={",".join(names)}')
  if files.twice:
    found.append('data: these clients are links to the folder of another, and '
                 f'have the same images: {some(files.twice)}')
  if files.bits:
    sites = collections.Counter(files.bits.values())
    same = f'{next(iter(sites))} bits' if len(sites) == 1 else some(
        [f'{x} bits in {name}' for name, x in files.bits.items()])
    found.append(f'data: images of 16 bits are read as of {same}, by their '
                 'largest value; data.depth sets another number')
  if files.pages:
    found.append(f'data: of {files.pages:,} files with several pages or frames '
                 'the first is read')
  if files.cropped:
    found.append(f'data: more than half of {files.cropped:,} long images is '
                 'cropped; data.fit=pad keeps whole images')
  if files.unseen:
    found.append(f'data: of {files.unseen:,} images with transparent pixels or '
                 'a colour profile the colours are read as stored; '
                 'data.colours=seen reads what a viewer shows, over white')
  return found


def skipped_lines(skipped: Sequence[str]) -> list[str]:
  """Returns a line on what was not read of a source that is no folder."""
  return [f'data: not read: {some(skipped)}; skipped.json names each'
          ] if skipped else []


def in_words(reason: str) -> str:
  """Puts a reason into words; it may be a mere file extension."""
  return f'{reason} is not a format that is read' if reason.startswith(
      '.') else reason


def counted(counts: Mapping[str, int]) -> str:
  """Lists counts by name, the largest first: '12 .heic, 1 .dcm'."""
  return ', '.join(f'{count:,} {name}' for name, count in sorted(
      counts.items(), key=lambda x: (-x[1], x[0])))


def shown(name: object) -> str:
  """Makes a file's name printable; some names have bytes that are no text."""
  text = os.fsencode(str(name)).decode(errors='replace')
  return ''.join(c if c.isprintable() else '?' for c in text)


def within(path: pathlib.Path, root: pathlib.Path) -> str:
  """Shows a path from `root`, or the whole path if it is elsewhere."""
  return shown(path.relative_to(root) if path.is_relative_to(root) else path)


def unreadable(path: object, error: OSError) -> BadInput:
  """The error to raise if the system denies reading a file."""
  mend = ('get the right to read it, or remove it' if error.errno in (
      errno.EACCES, errno.EPERM) else 'repair or remove it')
  return BadInput(f'{shown(path)} cannot be read '
                  f'({error.strerror or error}): {mend}')


def some(names: Sequence[str]) -> str:
  """Lists the first names, and counts the others."""
  return ', '.join(names[:_NAMED]) + (
      f' and {len(names) - _NAMED:,} more' if len(names) > _NAMED else '')
