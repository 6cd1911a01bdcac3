"""A config is checked once, and is then what was checked."""

import pytest
from rich.console import Console

from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import prepare
from fedu_jax.training import train
from fedu_jax.training.config import checks
from tests.helpers import tiny


def test_a_config_is_checked_once(tmp_path, monkeypatch):
  check, seen = checks.check, []

  def noting(config):
    seen.append(config)
    check(config)

  def stop(*_, **__):
    raise BadInput('far enough')
  monkeypatch.setattr(checks, 'check', noting)
  monkeypatch.setattr(prepare, 'data_of', stop)
  config = checks.checked(tiny.get_config())  # as main does
  assert len(seen) == 1
  for begin in train.train_and_evaluate, train.train:
    with pytest.raises(BadInput, match='far enough'):
      begin(config, str(tmp_path / 'run'), console=Console(quiet=True))
  assert len(seen) == 1
  with pytest.raises(BadInput, match='far enough'):
    train.train(tiny.get_config(), str(tmp_path / 'run'),
                console=Console(quiet=True))
  assert len(seen) == 2


def test_what_has_been_checked_cannot_be_changed():
  config = checks.checked(tiny.get_config())
  with pytest.raises(AttributeError):
    config.rounds = 0
  with pytest.raises(AttributeError):
    config.rule.threshold = -1
  assert checks.flatten(config) == checks.flatten(tiny.get_config())
  wrong = tiny.get_config()
  wrong.rounds = 0
  with pytest.raises(BadInput, match='config.rounds is 0'):
    checks.checked(wrong)
