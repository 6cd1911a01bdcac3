"""Runs that are killed and interrupted: the short form of the attacks."""

import pathlib

import pytest

from tests.faults import attack
from tests.faults import kill


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
  return kill.run(attack.Order(
      pathlib.Path(tmp_path_factory.mktemp('kill')), short=True, seed=0,
      say=print))


@pytest.mark.parametrize('row', kill.BROKEN)
def test_nothing_is_lost(row, outcomes):
  outcome = outcomes[row]
  assert outcome.tried > 0 and outcome.lost == 0, outcome
