"""Reading a run's folder: what is no run is refused in a line."""

import json

import pytest

from configs import smoke
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import finished_run
from fedu_jax.training.config import checks


def keep(folder, **changes):
  """Writes the config of a run, with some values changed by dotted names."""
  flat = checks.flatten(smoke.get_config()) | changes
  for name in checks.PLACES:
    flat.pop(name, None)
  (folder / 'config.json').write_text(json.dumps(flat))


def test_a_config_comes_back_with_the_places_that_are_asked_for(tmp_path):
  keep(tmp_path, rounds=7)
  config = finished_run.config_of(tmp_path, data_dir='/data')
  want = checks.flatten(smoke.get_config()) | checks.PLACES | {
      'rounds': 7, 'data.dir': '/data'}
  assert checks.flatten(config) == want


@pytest.mark.parametrize('text', [
    None, '', '[1, 2]', '{"rule": 1, "rule.name": 2}', '3'])
def test_a_folder_without_a_config_is_no_run(tmp_path, text):
  if text is not None:
    (tmp_path / 'config.json').write_text(text)
  with pytest.raises(BadInput, match='holds no run .*give the --workdir'):
    finished_run.config_of(tmp_path)


def test_a_config_that_is_wrong_is_refused_by_its_field(tmp_path):
  keep(tmp_path, batch_size=1)
  with pytest.raises(BadInput, match='batch_size'):
    finished_run.config_of(tmp_path)


def test_a_new_place_of_the_data_must_be_a_source(tmp_path):
  keep(tmp_path)
  assert finished_run.config_of(
      tmp_path, source='npz:/new.npz').data.source == 'npz:/new.npz'
  with pytest.raises(BadInput, match='--source=nonsense does not fit the run'):
    finished_run.config_of(tmp_path, source='nonsense')


def test_only_what_was_saved_has_rounds(tmp_path):
  assert finished_run.rounds_of(tmp_path, 'untrained') == 0
  for encoder in ('federation', 'alone0'):
    with pytest.raises(BadInput, match='has no checkpoints: choose'):
      finished_run.rounds_of(tmp_path, encoder)
  (tmp_path / 'alone0' / 'checkpoints').mkdir(parents=True)
  assert finished_run.rounds_of(tmp_path, 'alone0') == 0
