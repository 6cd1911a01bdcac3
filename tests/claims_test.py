"""To whom a run's folder belongs: what a config must share with it."""

import json

import pytest

from configs import smoke
from fedu_jax import claims
from fedu_jax import runs
from fedu_jax import settings
from fedu_jax.errors import BadInput


def begun(folder, config):
  """The folder of a run that has begun."""
  with claims.held(claims.claim(folder, config), config):
    pass
  return folder


def test_a_run_of_an_earlier_version_lacks_fields(tmp_path, monkeypatch):
  config = smoke.get_config()
  folder = begun(tmp_path / 'run', config)
  path = folder / 'config.json'
  flat = json.loads(path.read_text())
  del flat['rule.tau']
  path.write_text(json.dumps(flat))
  with pytest.raises(BadInput, match='another config'):
    claims.claim(folder, config)
  monkeypatch.setitem(settings.ADDED, 'rule.tau', config.rule.tau)
  claims.claim(folder, config)
  assert runs.config_of(folder).rule.tau == config.rule.tau
  # The value that it had, which is not the default of today.
  monkeypatch.setitem(settings.ADDED, 'rule.tau', 0.125)
  assert runs.config_of(folder).rule.tau == 0.125
  with pytest.raises(BadInput, match=r'rule.tau \(0.125, not 0.7\)'):
    claims.claim(folder, config)


def test_every_added_field_is_one():
  flat = settings.flatten(smoke.get_config())
  assert settings.ADDED.keys() <= flat.keys()
