"""A config is restored from its flat values, and a copy is independent."""

import json

import pytest

from configs import smoke
from fedu_jax.training.config import checks
from fedu_jax.training.config import config_dict


def test_a_config_comes_back_from_json():
  """With tuples, such as view.scale, which JSON stores as lists."""
  config = smoke.get_config()
  flat = checks.flatten(config)
  again = config_dict.from_flat(json.loads(json.dumps(flat)))
  assert again.view.scale == config.view.scale
  assert isinstance(again.view.scale, tuple)
  assert checks.flatten(again) == flat


def test_a_changed_copy_leaves_the_config_as_it_was():
  config = smoke.get_config()
  before = checks.flatten(config)
  copy = config_dict.changed(config, seed=5, **{'rule.tau': 0.25})
  assert checks.flatten(config) == before
  assert checks.flatten(copy) == before | {'seed': 5, 'rule.tau': 0.25}


@pytest.mark.parametrize('flat', [{'rule': 1, 'rule.name': 'dapu'}, {1: 2}])
def test_what_is_no_config_is_an_error(flat):
  with pytest.raises((AttributeError, TypeError)):
    config_dict.from_flat(flat)
