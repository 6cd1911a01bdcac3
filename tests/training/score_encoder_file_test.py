"""An exported encoder has the scores of its run, to the bit."""

import pytest
from rich.console import Console
from safetensors import numpy as safetensors_numpy

from configs import smoke
import fedu_jax
from fedu_jax.encoders import weights_file
from fedu_jax.encoders.named_network import Named
from fedu_jax.evaluation import protocols
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import prepare
from fedu_jax.training import score_encoder_file
from fedu_jax.training import score_run
from fedu_jax.training.config import binding
from fedu_jax.training.config import config_dict
from tests.helpers import saved_run

QUIET = Console(quiet=True)


def test_scores_are_the_run_s(tmp_path):
  run = saved_run.make(tmp_path / 'run', data__source='digits',
                       partition__name='iid', data__image_size=0)
  config = smoke.get_config()
  nets = binding.bind(config, 'model')()
  scorer = prepare.scorer_of(config, nets, prepare.data_of(config))
  online = saved_run.network(config)
  for projector, protocol in ((False, 'linear,knn_features'),
                              (True, 'linear,knn')):
    path = tmp_path / f'{projector}.safetensors'
    path.write_bytes(weights_file.to_bytes(
        fedu_jax.load(run, projector=projector)))
    want = score_run.ask(run, protocol, console=QUIET,
                         trained=(3, lambda: (scorer, online)))
    assert score_encoder_file.ask(path, protocol, source='digits', data_dir='',
                                  console=QUIET) == want
  plain = tmp_path / 'plain.safetensors'  # without our record
  plain.write_bytes(safetensors_numpy.save(
      safetensors_numpy.load(weights_file.to_bytes(fedu_jax.load(run)))))
  found = score_encoder_file.ask(
      plain, 'knn_features', source='digits', data_dir='', console=QUIET,
      named=Named('resnet6', 8, 'none'))
  # Its settings are the defaults, and not those of smoke.py.
  whole = config_dict.changed(config, **{
      'data.max_examples': 0, 'evaluation.knn_neighbours': 200})
  scorer = prepare.scorer_of(whole, nets, prepare.data_of(whole))
  assert found == score_run.score(
      protocols.parse('knn_features')[0], scorer, [online], 'federation', QUIET)
  with pytest.raises(BadInput, match='knn_features, or export with --proj'):
    score_encoder_file.ask(tmp_path / 'False.safetensors', 'knn',
                           source='digits', data_dir='', console=QUIET)
