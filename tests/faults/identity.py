"""Starts runs again with other images, other rounds, and old records.

A run is identified by its images and its config, not by their place. So another
place must change nothing, and another pixel must be noticed before anything is
written. All cases resume a run that has lost its newest checkpoint.
"""

from collections.abc import Callable
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np

from fedu_jax.training.config import checks
from tests.faults import attack
from tests.faults import disk
from tests.faults import ends
from tests.faults import forks
from tests.faults import kill

_OTHER, _ELSEWHERE, _MORE, _EARLIER, _RECORDS = (
    'other images', 'the same images elsewhere', 'other numbers of rounds',
    'a run of an earlier version', 'damaged records')
BROKEN = {
    _OTHER: attack.Break(
        'fedu_jax/training/data_record.py',
        'enumerate(zip(theirs, ours)) if a != b]',
        'enumerate(zip(theirs, ours)) if not a]'),
    _ELSEWHERE: attack.Break(
        'fedu_jax/training/data_record.py', "f'{images.dtype} {len(rows)}",
        "f'{images.dtype} {id(images)} {len(rows)}"),
    _MORE: attack.Break(
        'fedu_jax/training/config_changes.py', '  if not extend:\n',
        '  if not new:\n'),
    _EARLIER: attack.Break(
        'fedu_jax/training/config/checks.py', 'return ADDED | flat',
        'return dict(flat)'),
    _RECORDS: attack.Break(
        'fedu_jax/training/data_record.py',
        'except (OSError, ValueError, TypeError, KeyError):',
        'except OSError:')}

Arrays = dict[str, Any]


class Case(NamedTuple):
  """One start: the change before it, and its result."""
  data: Callable[[Arrays], Arrays] | None = None  # None: it stays as it was
  folder: Callable[[pathlib.Path], object] | None = None
  flags: tuple[str, ...] = ()
  words: str = ''  # of the refusal; '': the run comes to the same end
  further: int = 0  # rounds that it gets


def _with(**more: Any) -> Callable[[Arrays], Arrays]:
  """Changes arrays, each by a function of all of them."""
  return lambda arrays: arrays | {
      name: make(arrays) for name, make in more.items()}


def _pixel(arrays: Arrays) -> np.ndarray:
  images = arrays['train_images'].copy()
  images[7, 3, 3] ^= 1
  return images


def _swapped(first: int, second: int) -> Callable[[Arrays], np.ndarray]:
  def swap(arrays):
    images = arrays['train_images'].copy()
    images[[first, second]] = images[[second, first]]
    return images
  return swap


def _label(arrays: Arrays) -> np.ndarray:
  labels = arrays['train_labels'].copy()
  labels[[0, 1]] = labels[[1, 0]]
  return labels


def _cut(name: str, share: float) -> Callable[[pathlib.Path], object]:
  return lambda run: os.truncate(
      run / name, int(share * (run / name).stat().st_size))


def _written(name: str, text: str) -> Callable[[pathlib.Path], object]:
  return lambda run: (run / name).write_text(text)


def _aged(run: pathlib.Path) -> None:
  """Makes a run like one of a version without digests and later fields."""
  path = run / 'config.json'
  flat = json.loads(path.read_text())
  path.write_text(json.dumps(
      {name: x for name, x in flat.items() if name not in checks.ADDED}))
  (run / 'images.json').unlink()


def _renamed(arrays: Arrays) -> Arrays:
  return {'x_train': arrays['train_images'], 'y_train': arrays['train_labels']}


_GONE = 'no longer those'
# (Classes are i % 10, two a client: images 0 and 10 are of one client.)
_CASES: dict[str, dict[str, Case]] = {
    _OTHER: {
        'a pixel': Case(_with(train_images=_pixel), words=_GONE),
        'two of a client': Case(
            _with(train_images=_swapped(0, 10)), words=_GONE),
        'two of two clients': Case(
            _with(train_images=_swapped(0, 5)), words=_GONE),
        'a label': Case(_with(train_labels=_label), words=_GONE),
        'one less': Case(
            lambda arrays: {x: y[:-1] for x, y in arrays.items()}, words=_GONE),
        'another size': Case(
            flags=('--config.data.image_size=4',), words=_GONE),
        'fewer': Case(flags=('--config.data.max_examples=350',), words=_GONE),
        'a digit in the record': Case(
            folder=lambda run: (run / 'images.json').write_text(
                (run / 'images.json').read_text().replace('"clients": ["', (
                    '"clients": ["0'))), words=_GONE)},
    _ELSEWHERE: {
        'another file': Case(lambda arrays: arrays),
        'with a test half': Case(_with(
            test_images=lambda x: x['train_images'][:20],
            test_labels=lambda x: x['train_labels'][:20])),
        'other names': Case(_renamed),
        'three channels': Case(_with(train_images=lambda x: np.repeat(
            x['train_images'][..., None], 3, -1))),
        'other integers': Case(_with(
            train_labels=lambda x: x['train_labels'].astype('>u2')[:, None]))},
    _MORE: {
        'more': Case(flags=('--config.rounds=15',), words='add --extend'),
        'fewer': Case(flags=('--config.rounds=11',), words='cannot become'),
        'fewer, extended': Case(flags=('--config.rounds=11', '--extend'),
                                words='cannot become'),
        'and another rule': Case(
            flags=('--config.rounds=15', '--extend',
                   '--config.rule.threshold=0.5'), words='rule.threshold'),
        'and other images': Case(
            _with(train_images=_pixel),
            flags=('--config.rounds=15', '--extend'), words=_GONE),
        'extended': Case(
            flags=('--config.rounds=15', '--extend'), further=3),
        'extended by nothing': Case(flags=('--extend',))},
    _EARLIER: {
        'goes on': Case(folder=_aged),
        'elsewhere': Case(lambda arrays: arrays, folder=_aged,
                          words='a link to the data at its old place'),
        'with a later field': Case(
            folder=_aged, flags=('--config.model.convolution=exact',),
            words='model.convolution (fast, not exact)'),
        'of other counts': Case(
            folder=_aged, flags=('--config.data.max_examples=350',),
            words='data.max_examples')},
    _RECORDS: {
        'of images, cut': Case(folder=_cut('images.json', 0.5)),
        'of images, empty': Case(folder=_cut('images.json', 0)),
        'of images, a list': Case(folder=_written('images.json', '[1]')),
        'of images, a number': Case(folder=_written('images.json', '5')),
        'of images, of numbers': Case(
            folder=_written('images.json', '{"clients": 3}')),
        'of images, absent': Case(
            folder=lambda run: (run / 'images.json').unlink()),
        'of images, binary': Case(
            folder=lambda run: (run / 'images.json').write_bytes(b'\xff\0')),
        'of counts': Case(folder=_cut('partition.json', 0.5)),
        'of both': Case(folder=lambda run: [_cut(name, 0.5)(run) for name in (
            'partition.json', 'images.json')]),
        'of scores': Case(folder=_written('evaluation.json', '{"a"')),
        'of extensions': Case(folder=_written('extensions.json', '[{')),
        'the summary': Case(folder=_cut('summary.json', 0.5)),
        'the config': Case(folder=_cut('config.json', 0.5),
                           words='cannot be used'),
        'the config, a list': Case(folder=_written('config.json', '[]'),
                                   words='is no config')}}


def run(order: attack.Order) -> dict[str, attack.Outcome]:
  """Runs all rows; the first case of each if short."""
  found = {}
  with forks.of_runs() as server:
    left = order.folder / 'left'
    flags = kill.flags_of(order.folder, 'cohort') + [
        '--config.view.eight_bit=False']  # as runs of earlier versions
    first = server.start_run(left, *flags)
    assert first.wait() == 0, first.err()
    whole = _end(left)
    for row, cases in _CASES.items():
      if not order.wants(row):
        continue
      wrongs = []
      for name, case in list(cases.items())[:1 if order.short else None]:
        place = order.folder / row / name
        shutil.copytree(left, place / 'run')
        wrong = _tried(server, place, flags, case, whole)
        wrongs.append(wrong and f'{name}: {wrong}')
        order.say(f'{row}: {name}: {wrong or "good"}')
      found[row] = disk.outcome(wrongs)
  return found


def _tried(server, place: pathlib.Path, flags: list[str], case: Case,
           whole: dict[str, Any]) -> str:
  """Returns what is wrong with a second start of a run."""
  folder, flags = place / 'run', [*flags, *case.flags]
  shutil.rmtree(disk.steps_of(folder)[0])
  if case.data:
    with np.load(place.parents[1] / 'data.npz') as arrays:
      np.savez_compressed(place / 'data.npz', **case.data(dict(arrays)))
    flags.append(f'--config.data.source=npz:{place}/data.npz')
  if case.folder:
    case.folder(folder)
  if case.words:
    return disk.refused(server, folder, flags, case.words)
  again = server.start_run(folder, *flags)
  if again.wait() or again.err():
    return f'exit code {again.poll()}: {again.err()[-300:]}'
  end = _end(folder)
  if not case.further:
    return ends.difference(end, whole)
  rows = end['metrics.jsonl']
  if rows[:8] != whole['metrics.jsonl'][:8]:
    return 'rounds that were done are not as before'
  if len(rows) != len(whole['metrics.jsonl']) + case.further:
    return f'there are {len(rows)} rounds'
  told = json.loads((folder / 'summary.json').read_text()).get('extensions')
  return '' if told and told[0]['after_round'] == 8 else f'it tells of {told}'


def _end(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the end of a run, without the place of its data."""
  found = ends.of(folder)
  for config in (found['config.json'], found['summary.json']['config']):
    config.pop('data.source')
  return found
