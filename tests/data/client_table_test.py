"""The table of clients has a title that says what it counts."""

import io

import numpy as np
from rich.console import Console

from fedu_jax.data.client_table import client_table


def shown(*args):
  console = Console(file=io.StringIO(), width=80)
  console.print(client_table(*args))
  rows = [x.split() for x in console.file.getvalue().splitlines() if x.strip()]
  head = next(i for i, row in enumerate(rows) if row[0] == 'client'
              and row[-1] == 'all')
  return [' '.join(sum(rows[:head], [])), *rows[head:]]  # the title may wrap


OWNERS = np.repeat([0, 1], [3, 5])
NAMES = ('ann [1]', 'bob')


def test_clients_that_are_owners_have_their_names_and_no_classes():
  rows = shown(None, [np.arange(3), np.arange(3, 8)], OWNERS, NAMES)
  assert rows[0] == 'examples by client'
  assert rows[1] == ['client', 'all']
  assert rows[3:] == [['ann', '[1]', '3'], ['bob', '5']]


def test_clients_that_share_out_the_owners_are_numbered():
  """There may be more clients than owners, so clients have no owners' names."""
  parts = [np.array(x) for x in ([0, 4], [1, 5], [2, 6], [3, 7])]
  rows = shown(None, parts, OWNERS, NAMES)
  assert rows[0] == "examples by client and owner's folder"
  assert rows[1] == ['client', 'ann', '[1]', 'bob', 'all']
  assert rows[3] == ['0', '1', '1', '2'] and rows[6] == ['3', '.', '2', '2']


def test_classes_are_counted_where_there_are_labels():
  labels = np.array([0, 0, 1, 1, 1, 0, 0, 0])
  for owners, names, first in ((None, (), '0'), (OWNERS, NAMES, 'ann')):
    rows = shown(labels, [np.arange(3), np.arange(3, 8)], owners, names)
    assert rows[0] == 'examples by client and class'
    assert rows[1] == ['client', '0', '1', 'all']
    assert rows[3][0] == first and rows[3][-3:] == ['2', '1', '3']


def test_many_owners_are_shown_as_their_number():
  rows = shown(None, [np.arange(20)], np.arange(20) % 14, ())
  assert rows[0] == 'examples by client and owner'
  assert rows[1] == ['client', 'owners', 'all'] and rows[3] == ['0', '14', '20']


def test_there_is_no_table_of_nothing():
  assert client_table(None, [np.arange(3)]) is None
