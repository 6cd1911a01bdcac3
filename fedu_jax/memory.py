"""How much this host's memory holds, and a refusal of what it cannot."""

import os

from fedu_jax.errors import BadInput


def host_bytes() -> int:
  """The memory of this host."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def refuse(size: int, what: str) -> None:
  """Refuses what takes more bytes than there are, before any is taken.

  Args:
    size: in bytes.
    what: takes them; the message begins with it.

  Raises:
    BadInput: memory is smaller.
  """
  if size > host_bytes():
    raise BadInput(f'{what} takes {size / 1e9:.0f} GB, more than the memory '
                   f'here ({host_bytes() / 1e9:.0f} GB): choose a smaller one')
