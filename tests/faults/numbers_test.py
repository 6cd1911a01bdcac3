"""Numbers gone wrong, sameness and endurance, as far as a minute allows.

The rest of the short forms is `python -m tests.faults --short`.
"""

import json

import jax
import pytest
from rich.console import Console

from fedu_jax.runtime.errors import Diverged
from fedu_jax.training import train
from tests.faults import attack
from tests.faults import numbers
from tests.faults import same
from tests.faults import soak
from tests.faults import tiny


@pytest.mark.parametrize('module, rows', [
    (numbers, ('images of a client', 'state of a client',
               'gradients of a client in a store', 'collapse')),
    (same, ('twice in a process',)),
    (soak, tuple(soak.BROKEN))])
def test_attacks_lose_nothing(module, rows, tmp_path):
  """Seconds a round are left for an idle machine to judge."""
  with jax.numpy_rank_promotion('allow'):
    found = module.run(attack.Order(tmp_path, True, 0, print, rows))
  assert set(found) == set(rows) <= set(module.BROKEN)
  found.pop('seconds a round', None)
  for row, outcome in found.items():
    assert outcome.tried and not outcome.lost, (row, outcome.note)


def test_a_round_that_leaves_nobody_stops_and_the_next_start_goes_on(tmp_path):
  config = tiny.get_config()
  config.learner.ill = ()
  console = Console(quiet=True)
  with jax.numpy_rank_promotion('allow'):
    with pytest.raises(Diverged, match='in round 2 the numbers of all'):
      train.train(config, str(tmp_path / 'run'), console=console)
    trained = train.train(config, str(tmp_path / 'run'), console=console)
  rows = [json.loads(row) for row in
          (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  assert [len(row['left_out']) for row in rows] == [0, 5, 0]
  assert rows[1]['loss'] is None and rows[2]['loss'] < 4
  assert trained.speed['left_out'] == 5
