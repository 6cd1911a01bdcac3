"""Tables of scores: units, gaps, and NaN."""

import io
import math

from fedu_jax.evaluation import score_tables
from fedu_jax.runtime import terminal


def lines(table):
  """Returns the words of each printed row."""
  shown = io.StringIO()
  terminal.console(shown, width=100).print(table)
  return [line.split() for line in shown.getvalue().splitlines()]


def test_accuracies_are_in_per_cent_and_other_scores_are_not():
  """Alignment is a distance from 0 to 4."""
  shown = lines(score_tables.of_one_encoder(
      'federation', {'knn': 0.5, 'alignment': 0.25}))
  assert ['knn', '50.00', '%'] in shown and ['alignment', '0.2500'] in shown


def test_a_score_that_an_encoder_lacks_leaves_a_gap():
  shown = lines(score_tables.by_encoder(
      {'untrained': {'knn': 0.5}, 'federation': {'knn': 0.25, 'linear': 1.0}}))
  assert ['encoder', 'knn', 'linear'] in shown
  assert ['untrained', '50.00', '-'] in shown
  assert ['federation', '25.00', '100.00'] in shown


def test_scores_that_are_no_numbers_are_named():
  assert not score_tables.unsound_line(
      {'federation': {'knn': 0.5, 'linear': 0.0}})
  line = score_tables.unsound_line({
      'untrained': {'knn': 0.5}, 'federation': {'knn': math.nan,
                                                'linear': math.nan}})
  assert 'federation (knn, linear)' in line and 'untrained' not in line
