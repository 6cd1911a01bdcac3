"""Fields: each is declared once, is explained, and allows its own values."""

import pytest

from fedu_jax.training.config import checks
from fedu_jax.training.config import config_dict
from fedu_jax.training.config.fields import FIELDS


@pytest.mark.parametrize('field', FIELDS.values(), ids=FIELDS)
def test_a_field_allows_its_values_and_says_what_it_is(field):
  assert not field.check(field.default)
  assert field.before is None or not field.check(field.before)
  assert field.check(object())
  assert len(field.about) > 10 and not field.about.endswith('.')


def test_a_config_has_every_field_at_its_default():
  flat = checks.flatten(config_dict.defaults())
  assert flat == {name: field.default for name, field in FIELDS.items()}
