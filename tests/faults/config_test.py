"""Wrong configurations: hundreds of starts, each refused without harm."""

from tests.faults import attack
from tests.faults import config


def test_every_field_is_checked_before_anything_is_touched(tmp_path):
  """For each field, one wrong value in a file and one by a flag.

  `python -m tests.faults --only=config` tries all.
  """
  said = []
  found = config.run(attack.Order(tmp_path, True, 0, said.append))
  assert found.keys() == config.BROKEN.keys()
  assert not any(x.lost for x in found.values()), '\n'.join(said)
  assert all(x.tried for x in found.values())
  assert sum(x.tried for x in found.values()) >= 250
