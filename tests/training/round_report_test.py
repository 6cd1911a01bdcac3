"""The report of rounds shows NaN as such."""

import io
import json
import math

import numpy as np

from fedu_jax.runtime import terminal
from fedu_jax.training import round_report


def row(**more):
  return {'round': 1, 'loss': 0.5, 'bytes_up': 1, 'bytes_down': 1, 'images': 8,
          'seconds': 1.0, 'images_per_second': 8.0, 'cohort': np.arange(2),
          'arrived': np.ones(2, bool), 'left_out': np.array([], int),
          'global_predictor': np.ones(2, bool),
          'clients': {'divergence': np.ones(2), 'steps': np.ones(2, int)}
          } | more


def test_a_reading_that_is_no_number_is_shown(tmp_path):
  """For example kNN of features that are not finite; absent scores are not
  shown.
  """
  shown = io.StringIO()
  with round_report.RoundReport(tmp_path, terminal.console(shown), 'federation',
                                done=0, rounds=3) as rounds:
    rounds.add(row())
    rounds.add(row(round=2, knn_accuracy=math.nan))
    rounds.add(row(round=3, knn_accuracy=0.25))
  lines = [line for line in shown.getvalue().splitlines() if 'loss' in line]
  assert ['knn' in line for line in lines] == [False, True, True]
  assert 'knn nan ' in lines[1] and 'knn 25.00 ' in lines[2]
  rows = [json.loads(line) for line in
          (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert rows[1]['knn_accuracy'] is None and rows[2]['knn_accuracy'] == 0.25
