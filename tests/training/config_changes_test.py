"""A run of two clients' folders that moves, is scored, and is extended.

Its images have no labels. All tests use one run, in this process.
"""

import io
import json
import shutil

import numpy as np
from PIL import Image
import pytest

from configs import smoke
from fedu_jax.runtime import terminal
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import finished_run
from fedu_jax.training import prepare
from fedu_jax.training import score_run
from fedu_jax.training import train
from tests.helpers import sites


def config_of(data, rounds=1):
  config = smoke.get_config()
  config.rounds = rounds
  config.clients = 2
  config.batch_size = 4
  config.data.source = f'folder:{data}'
  config.data.image_size = 8
  config.data.max_examples = 0
  config.partition.name = 'natural'
  return config


def run(folder, config, **more):
  """Returns the printed lines of a start."""
  printed = io.StringIO()
  train.train_and_evaluate(config, str(folder),
                           console=terminal.console(printed, width=300), **more)
  return printed.getvalue()


def ask(folder, protocol, **more):
  return score_run.ask(folder, protocol, console=terminal.console(quiet=True),
                       **more)


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  root = tmp_path_factory.mktemp('moved')
  sites.two_sites(root / 'data')
  run(root / 'run', config_of(root / 'data'))
  return root


@pytest.fixture
def moved(done, tmp_path):
  """Copies a run and its data to another place."""
  shutil.copytree(done / 'run', tmp_path / 'run')
  shutil.copytree(done / 'data', tmp_path / 'data',
                  ignore=lambda _, names: [x for x in names if x[0] == '.'])
  return tmp_path


def spoil(root):
  """Changes one pixel of one image; counts stay the same."""
  path = root / 'data' / 'bob' / '3.png'
  pixels = np.array(Image.open(path))
  pixels[4, 4] ^= 255
  Image.fromarray(pixels).save(path)


def test_a_run_without_labels_is_scored_by_what_needs_none(done):
  found = ask(done / 'run', 'transfer:digits,geometry')
  assert 0 < found['transfer to digits'] <= 1
  assert np.isfinite([found['alignment'], found['uniformity']]).all()
  for name in ('linear', 'knn', 'knn_features', 'semi:0.1', 'classifier',
               'finetune:0.1:balanced', 'geometry,linear:raw'):
    with pytest.raises(BadInput, match=f'protocol {name.split(",")[-1]} needs '
                       'labelled training and test images'):
      ask(done / 'run', name)


def test_moved_data_is_known_by_its_images(moved):
  config = config_of(moved / 'data')
  assert 'data.source is folder:' in run(moved / 'run', config)
  kept = json.loads((moved / 'run' / 'config.json').read_text())
  assert kept['data.source'] == f'folder:{moved}/data'
  # The same images in a file, with labels that were not known before.
  data = prepare.data_of(config)
  labels = np.arange(10) % 2
  np.savez(moved / 'a.npz', train_images=data.train_images,
           train_labels=labels, owners=data.owners,
           test_images=data.train_images, test_labels=labels)
  found = ask(moved / 'run', 'knn', source=f'npz:{moved}/a.npz')
  assert 0 <= found['knn'] <= 1
  spoil(moved)
  (moved / 'run' / 'evaluation.json').unlink()
  before = {p: p.read_bytes() for p in (moved / 'run').rglob('*')
            if p.is_file()}
  with pytest.raises(BadInput, match='no longer those.*images of 1 of 2 clients'
                     '.*client 1.*--config.data.source'):
    run(moved / 'run', config)
  for source in ('', f'folder:{moved}/data'):
    with pytest.raises(BadInput, match='no longer those.*--source'):
      ask(moved / 'run', 'geometry', source=source)
  assert before == {p: p.read_bytes() for p in (moved / 'run').rglob('*')
                    if p.is_file()}


def test_moved_data_is_asked_for_by_the_flags_that_name_it(moved):
  with pytest.raises(BadInput, match='--source=digits does not fit the run'):
    ask(moved / 'run', 'geometry', source='digits')
  (moved / 'run' / 'evaluation.json').unlink(missing_ok=True)
  with pytest.raises(BadInput, match='no folder .*nowhere.*--source or --data'):
    ask(moved / 'run', 'geometry', source=f'folder:{moved}/nowhere')


def test_what_is_known_is_not_told_of_other_images(moved):
  """Kept scores are shown, unless a place of the data is given."""
  ask(moved / 'run', 'geometry', source=f'folder:{moved}/data')
  spoil(moved)
  with pytest.raises(BadInput, match='no longer those'):
    ask(moved / 'run', 'geometry', source=f'folder:{moved}/data')


def test_a_finished_run_goes_on_to_more_rounds(moved):
  ask(moved / 'run', 'geometry')
  longer = config_of(moved / 'data', rounds=2)
  with pytest.raises(BadInput, match='add --extend'):
    run(moved / 'run', longer)
  printed = run(moved / 'run', longer, extend=True)
  assert 'extended from 1 to 2 rounds after round 1' in printed
  assert 'going on after round 1 of 2' in printed
  rows = (moved / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(row)['round'] for row in rows] == [1, 2]
  assert finished_run.rounds_of(moved / 'run', 'federation') == 2
  found = ask(moved / 'run', 'geometry')
  kept = json.loads((moved / 'run' / 'evaluation.json').read_text())
  assert kept['federation']['rounds'] == 2
  assert kept['federation']['scores']['geometry'] == found
  summary = json.loads((moved / 'run' / 'summary.json').read_text())
  assert summary['rounds'] == 2
  assert [row['to'] for row in summary['extensions']] == [2]
