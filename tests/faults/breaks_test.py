"""Each attack names a fault that it notices, and the table lists them all."""

import importlib
import pathlib
import re

import pytest

from tests.faults import __main__ as faults

ROOT = pathlib.Path(__file__).parents[2]
BREAKS = {row: fault for name in faults.MODULES for row, fault in
          importlib.import_module(f'tests.faults.{name}').BROKEN.items()}


@pytest.mark.parametrize('row', BREAKS)
def test_every_fault_can_be_put_in(row):
  """The text that `--broken` replaces is in the code, and once."""
  fault = BREAKS[row]
  assert fault.old != fault.new
  assert (ROOT / fault.file).read_text().count(fault.old) == 1


def test_the_table_has_a_row_for_each_attack():
  text = (pathlib.Path(__file__).parent / 'README.md').read_text()
  rows = re.findall(r'^\| (.+?) \| \d+ \|', text, re.MULTILINE)
  assert sorted(rows) == sorted(BREAKS)
