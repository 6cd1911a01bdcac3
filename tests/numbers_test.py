"""Numbers gone wrong, in short: what is left out, who is told, and collapse."""

import jax
import pytest

from benchmarks.faults import attack, numbers, same, soak


@pytest.mark.parametrize('module', [numbers, same, soak])
def test_attacks_lose_nothing(module, tmp_path, capsys):
  """The short forms; seconds a round are for an idle machine to judge."""
  with jax.numpy_rank_promotion('allow'):
    found = module.run(attack.Order(tmp_path, True, 0, print))
  assert found.keys() == module.BROKEN.keys()
  found.pop('seconds a round', None)
  for row, outcome in found.items():
    assert outcome.tried and not outcome.lost, (row, outcome.note)
