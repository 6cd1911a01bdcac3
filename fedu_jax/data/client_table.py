"""The table of how many examples of each class or owner each client has."""

from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

_SHOWN = 20  # clients in a table
_COLUMNS = 12  # classes, or owners
_PLURALS = {'class': 'classes', 'owner': 'owners', "owner's folder": 'folders'}


def client_table(labels: np.ndarray | None, parts: list[np.ndarray],
                 owners: np.ndarray | None = None,
                 names: tuple[str, ...] = ()) -> Table | None:
  """Tabulates how many examples of each class each client has.

  Without labels it counts examples of each owner. If each client is one owner,
  it shows one count for each. More than twelve columns become one column, the
  number of classes or owners. Only the first twenty clients are shown;
  `partition.json` has all.

  Args:
    labels: the classes, [N], or None.
    parts: for each client, the rows of its examples.
    owners: the owners, [N], or None.
    names: the names of the owners, if they have names.

  Returns:
    The table; None without labels and owners.
  """
  natural = owners is not None and len(parts) == len(np.unique(owners)) and all(
      (owners[part] == i).all() for i, part in enumerate(parts))
  groups, what = (labels, 'class') if labels is not None else (
      owners, "owner's folder" if names else 'owner')
  if groups is None:
    return None
  alone = natural and labels is None  # a diagonal table would be of no use
  table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False,
                title='examples by client' + f' and {what}' * (not alone))
  values: Any = [] if alone else np.unique(groups)
  wide = len(values) <= _COLUMNS
  table.add_column('client', justify='right', no_wrap=True)
  heads = [_PLURALS[what]] if not wide else [
      names[x] if names and labels is None else str(x) for x in values]
  for head in heads:
    table.add_column(Text(head), justify='right')
  table.add_column('all', justify='right')
  for i, part in enumerate(parts[:_SHOWN]):
    counts = [int((groups[part] == x).sum()) for x in values]
    cells = counts if wide else [sum(x > 0 for x in counts)]
    table.add_row(Text(names[i] if names and natural else str(i)),
                  *(str(x) if x else '.' for x in cells), str(len(part)))
  if len(parts) > _SHOWN:
    table.caption = f'and {len(parts) - _SHOWN:,} more clients'
  return table
