"""What was read of a folder of images, and what was not: numbers and words."""

import collections
from collections.abc import Mapping, Sequence
import errno
import os
from typing import Any, NamedTuple

from fedu_jax.runtime.errors import BadInput

_NAMED = 3  # files in a line


class Files(NamedTuple):
  """What was read of a folder."""
  read: int  # images
  total: int  # files, but for those in folders that were not looked into
  pixels: int  # of a side
  asked: bool  # whether the config says how many
  files: Mapping[str, int] = {}  # reason -> how many are no images to be read
  folders: Mapping[str, int] = {}  # reason -> how many were not looked into
  damaged: tuple[str, ...] = ()  # images that are not read, with the reason
  tests: tuple[str, ...] = ()  # folders that are read, named like a test split
  twice: tuple[str, ...] = ()  # clients' folders that are links to others
  bits: Mapping[str, int] = {}  # client -> of its images of more than 8
  pages: int = 0  # files of several pages or frames
  cropped: int = 0  # images that lost more than half to the crop
  unseen: int = 0  # images of other colours than a viewer shows

  def summary(self) -> dict[str, Any]:
    """The numbers, for a run's summary."""
    return {'read': self.read, 'total': self.total, 'pixels': self.pixels,
            'not_read': dict(self.files) | (
                {'damaged': len(self.damaged)} if self.damaged else {}),
            'folders_not_read': dict(self.folders), 'bits': dict(self.bits),
            'first_of_several_pages': self.pages,
            'cropped_by_half': self.cropped,
            'colours_as_stored': self.unseen, 'like_a_test': list(self.tests)}


def lines(files: Files) -> list[str]:
  """Says what was read and what was not, and below it what may surprise."""
  size = f'{files.pixels} pixels' + (
      '' if files.asked else ' (the default: data.image_size is 0)')
  parts = [f'data: read {files.read:,} of {files.total:,} files at {size}']
  if files.files:
    parts.append('not read: ' + counted(files.files))
  if files.damaged:
    parts.append(f'skipped {len(files.damaged):,} that cannot be read: '
                 + _some(files.damaged))
  if files.folders:
    parts.append('folders passed over: ' + counted(files.folders))
  found = ['; '.join(parts) + (
      '; skipped.json names each' if len(parts) > 1 else '')]
  if files.tests:
    names = list(dict.fromkeys(x.rsplit('/', 1)[-1] for x in files.tests))
    found.append(
        'data: folders that are called like a test split are trained on: '
        f'{_some(files.tests)}; to leave them out, set '
        f'--config.data.leave_out={",".join(names)}')
  if files.twice:
    found.append('data: these clients are links to the folder of another, and '
                 f'have the same images: {_some(files.twice)}')
  if files.bits:
    sites = collections.Counter(files.bits.values())
    same = f'{next(iter(sites))} bits' if len(sites) == 1 else _some(
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
  """Says what of a source that is no folder was not read, if anything."""
  return [f'data: not read: {_some(skipped)}; skipped.json names each'
          ] if skipped else []


def in_words(reason: str) -> str:
  """Says why a file is not read, which may be told by its extension alone."""
  return f'{reason} is not a format that is read' if reason.startswith(
      '.') else reason


def counted(counts: Mapping[str, int]) -> str:
  """Lists counts by name, the largest first: '12 .heic, 1 .dcm'."""
  return ', '.join(f'{count:,} {name}' for name, count in sorted(
      counts.items(), key=lambda x: (-x[1], x[0])))


def shown(name: object) -> str:
  """A file's name as it can be printed: some hold bytes that are no text."""
  text = os.fsencode(str(name)).decode(errors='replace')
  return ''.join(c if c.isprintable() else '?' for c in text)


def unreadable(path: object, error: OSError) -> BadInput:
  """What is raised where the system does not let us read."""
  mend = ('get the right to read it, or remove it' if error.errno in (
      errno.EACCES, errno.EPERM) else 'repair or remove it')
  return BadInput(f'data.source folder: {shown(path)} cannot be read '
                  f'({error.strerror or error}): {mend}')


def _some(names) -> str:
  return ', '.join(names[:_NAMED]) + (
      f' and {len(names) - _NAMED:,} more' if len(names) > _NAMED else '')
