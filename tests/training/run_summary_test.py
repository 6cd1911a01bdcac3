"""The summary of a run: which of its scores stand under which names."""

import math

from configs import smoke
from fedu_jax.training import run_summary
from fedu_jax.training.config import checks


class Scorer:
  """Takes numbers for networks, and twice the number for its accuracy."""

  def all(self, online):
    return {'knn': 2 * online, 'linear': online}

  def fitted(self, online):
    return online + 0.25


def test_every_network_is_scored_by_its_name():
  """The untrained one twice, of which the best counts."""
  found = run_summary.scores_of(Scorer(), untrained=0.125, alone=[0.25, 0.5],
                                federation=0.0625)
  assert found == {
      'untrained': {'knn': 0.75, 'linear': 0.375},
      'client 0 alone': {'knn': 0.5, 'linear': 0.25},
      'client 1 alone': {'knn': 1.0, 'linear': 0.5},
      'mean of 2 alone': {'knn': 0.75, 'linear': 0.375},
      'federation': {'knn': 0.125, 'linear': 0.0625}}
  assert list(run_summary.scores_of(
      Scorer(), untrained=0, alone=[1], federation=2)) == [
          'untrained', 'client 0 alone', 'federation']


def test_a_summary_has_what_was_measured_and_nothing_else():
  config = smoke.get_config()
  scores = {'untrained': {'knn': 0.25}, 'federation': {'knn': math.nan}}
  devices = {'device': 'NVIDIA H100', 'platform': 'gpu', 'devices': 8}
  found = run_summary.summary_of(
      config, scores, {'seconds': 3.0}, measures={}, wall=5.0, files=None,
      devices=devices, extensions=[])
  assert found['scores'] == scores and found['wall_seconds'] == 5.0
  assert found['knn_accuracy_untrained'] == 0.25 and found['seconds'] == 3.0
  assert math.isnan(found['knn_accuracy'])
  assert found['linear_accuracy'] is None  # nothing of it was measured
  assert found['config'] == checks.flatten(config)
  assert devices.items() <= found.items()
  assert not {'files', 'extensions', 'label_free'} & found.keys()
  assert run_summary.summary_of(
      config, {}, {}, measures={'verdict': 'healthy'}, wall=5.0,
      files={'read': 3}, devices=devices, extensions=[{'to': 4}]).items() >= {
          'files': {'read': 3}, 'label_free': {'verdict': 'healthy'}}.items()
