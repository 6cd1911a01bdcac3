"""Reads the amounts of memory in libraries' errors.

Seen in XLA's compilers for CPU, GPU and TPU, in PjRt, and in NumPy:

  Out of memory while trying to allocate 16.00GiB.
  Out of memory allocating 8796093022208 bytes.
  Ran out of memory in memory space hbm. Used 24.30G of 15.75G hbm.
  Attempting to reserve 9.92G at the bottom of memory. That was not possible.
      There are 7.28G free, 0B reserved, and 7.28G reservable.
  Unable to allocate 1.00 PiB for an array
"""

import re
from typing import NamedTuple

_AMOUNT = r'\(?([\d.]+)\s?(bytes|[KMGTP]i?B?|B)\b'
_NEEDED = (
    r'(?i:allocate|allocating|allocation of|reserve|used|required for HLO '
    r'temporaries) ' + _AMOUNT)
_FREE = (
    r'(?i:used [\d.]+\s?\w+ of|there are|memory limit of|available HBM) '
    + _AMOUNT)


class Amounts(NamedTuple):
  """Bytes that were needed, and that were free; 0 if a text does not say."""
  needed: int
  free: int


def amounts(text: str) -> Amounts:
  """Finds the amounts in the text of an error."""
  return Amounts(_bytes(re.search(_NEEDED, text)),
                 _bytes(re.search(_FREE, text)))


def _bytes(found: re.Match[str] | None) -> int:
  if not found:
    return 0
  number, unit = found[1].rstrip('.'), found[2]
  if unit in ('bytes', 'B'):
    return int(float(number))
  # XLA writes G and GiB for 2**30 bytes.
  base = 1000 if len(unit) == 2 else 1024
  return int(float(number) * base ** (1 + 'KMGTP'.index(unit[0])))
