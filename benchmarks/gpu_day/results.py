"""What a call leaves for the next one: small files, and compiled programs."""

from collections.abc import Iterable
import contextlib
import pathlib
import shutil
import tarfile

_ARCHIVE = 'compiled.tar'
_MOST = 15 * 2**20  # bytes of compiled programs that are copied out


def keep(out: pathlib.Path, work: pathlib.Path) -> None:
  """Copies compiled programs out, and the results where the next call looks.

  Args:
    out: the folder of results.
    work: the folder of large files, which may be lost between calls.
  """
  compiled = work / 'compiled'
  files = sorted((x for x in compiled.glob('*-cache') if x.is_file()),
                 key=lambda x: -x.stat().st_mtime)
  room = _MOST
  with tarfile.open(out / _ARCHIVE, 'w') as archive:
    for path in files:
      if path.stat().st_size + 1024 <= room:
        room -= path.stat().st_size + 1024
        archive.add(path, path.name)
  last = work / 'last'
  if last != out:
    shutil.rmtree(last, ignore_errors=True)
    shutil.copytree(out, last)


def unpack_cache(work: pathlib.Path, folders: Iterable[pathlib.Path]) -> None:
  """Takes compiled programs from the first of these folders that has some."""
  compiled = work / 'compiled'
  for folder in folders:
    archive = folder / _ARCHIVE
    if archive.is_file() and not compiled.exists():
      with contextlib.suppress(tarfile.TarError, OSError), tarfile.open(
          archive) as file:
        file.extractall(compiled, filter='data')
