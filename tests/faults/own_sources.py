"""A researcher's own sources, some of which return wrong data.

Each is a function for `data.source`; most return what they must not.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.faults.specimens import judged

_IMAGES = np.zeros((12, 4, 4, 3), np.uint8)
_LABELS = np.arange(12) % 3


def bare() -> dict[str, Any]:
  """Images of noise alone: [600, 8, 8, 3]."""
  return {'train_images': np.random.RandomState(0).randint(
      0, 256, (600, 8, 8, 3)).astype(np.uint8)}


def owned() -> dict[str, Any]:
  """The same images, of three owners."""
  return bare() | {'owners': np.arange(600) % 3}


def asks(*, more: int) -> dict[str, Any]:
  """Needs a field that no config has."""
  return {'train_images': _IMAGES[:more]}


def asks_by_place(more: int) -> dict[str, Any]:
  """Cannot be called with keyword arguments behind a *."""
  return {'train_images': _IMAGES[:more]}


def raises() -> dict[str, Any]:
  """Fails as no reader should: its message has two lines."""
  raise KeyError('of\ntwo lines')


def stops() -> dict[str, Any]:
  """Raises what ends loops."""
  raise StopIteration


def endless() -> dict[str, Any]:
  """Calls itself."""
  return endless()


class _Odd:
  """An object that cannot be printed."""

  def __repr__(self) -> str:
    raise ValueError('no')


# What functions return, by name, and words of the refusal or 'read'.
RETURNED: dict[str, tuple[Any, str]] = {
    'none': (None, 'no mapping'), 'number': (3, 'no mapping'),
    'text': ('train_images', 'no mapping'), 'empty': ({}, 'no train_images'),
    'array': (_IMAGES, ''), 'pair': ((_IMAGES, _LABELS), ''),
    'images_none': ({'train_images': None}, 'no train_images'),
    'more': ({'train_images': _IMAGES, 'images': _IMAGES}, 'returned images'),
    'number_key': ({'train_images': _IMAGES, 5: _IMAGES}, 'returned 5'),
    'nested': ({'train_images': [[1], [2, 3]]}, ''),
    'objects': ({'train_images': np.array([_Odd()] * 2, object)},
                'must be uint8'),
    'odd': ({'train_images': _IMAGES, 'train_labels': _Odd()}, '12 integers'),
    'floats': ({'train_images': _IMAGES / 255}, 'must be uint8'),
    'lists': ({'train_images': _IMAGES.tolist()}, 'must be uint8'),
    'text_labels': ({'train_images': _IMAGES, 'train_labels': ['a'] * 12},
                    '12 integers'),
    'nan_labels': ({'train_images': _IMAGES, 'train_labels': [np.nan] * 12},
                   '12 integers'),
    'low_labels': ({'train_images': _IMAGES, 'train_labels': _LABELS - 1},
                   'go from -1'),
    'gap': ({'train_images': _IMAGES, 'owners': _LABELS * 2}, 'owner 1 has no'),
    'names': ({'train_images': _IMAGES, 'owners': _LABELS,
               'owner_names': ['a', 'b']}, '3 texts'),
    'names_alone': ({'train_images': _IMAGES, 'owner_names': ['a']},
                    '0 texts'),
    'odd_names': ({'train_images': _IMAGES, 'owners': _LABELS,
                   'owner_names': ['a\n', '\x1b[31m', '\ud800']}, 'read'),
    'right': ({'train_images': _IMAGES, 'train_labels': list(_LABELS),
               'owners': _LABELS.astype(np.uint8), 'skipped': ['x']}, 'read'),
    'read_only': ({'train_images': np.broadcast_to(_IMAGES[:1], _IMAGES.shape)},
                  'read'),
    'reversed': ({'train_images': _IMAGES[::-1, :, ::-1]}, 'read')}
# Those of the functions above that are wrong by how they end.
ENDINGS = {'raises': 'failed', 'stops': 'failed',
           'endless': 'failed', 'asks': 'failed', 'nothing': 'cannot be'}


def attempts(order, load) -> Iterator[tuple[str, str]]:
  """Reads each, at once and row by row."""
  every = {name: words for name, (_, words) in RETURNED.items()} | ENDINGS
  for name, words in every.items():
    for lazy in ('eager',) if order.short else ('eager', 'lazy'):
      yield f'{name}, {lazy}', judged(load(f'{__name__}:{name}', lazy), words)


def __getattr__(name: str) -> Callable[[], Any]:
  if name in RETURNED:
    return lambda: RETURNED[name][0]
  raise AttributeError(f'{__name__} has no {name}')
