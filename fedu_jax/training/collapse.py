"""Detects the collapse of features, and makes a warning.

A loss does not show collapse: it falls as usual while the features of all
images become equal. The spread of the features shows it.
"""

import numpy as np

from fedu_jax.evaluation import label_free
from fedu_jax.training import round_report

SETTLED = 3  # the first round that is checked; the spread needs some to fall


class Collapse:
  """Checks the rounds of a federation, and warns of a collapse once."""

  def __init__(self) -> None:
    self._told = False

  def warning(self, row: round_report.Row) -> str | None:
    """Returns a warning after a round, or None.

    Args:
      row: the row of the round, with arrays as values. Under 'clients' it may
        have the learner's 'feature_std', see `losses.feature_std`.
    """
    clients = row['clients']
    spread = clients.get('feature_std')
    if self._told or spread is None or row['round'] < SETTLED:
      return None
    # A researcher's learner may report several numbers for each client.
    spread = np.asarray(spread).reshape(len(spread), -1).min(1)
    low = (spread < label_free.COLLAPSED) & (clients['steps'] > 0)
    if not low.any():
      return None
    self._told = True
    return (f"warning: in round {row['round']} the features of "
            f"{round_report.names(row['cohort'][low])} have collapsed: their "
            f'standard deviation is {np.min(spread[low]):.4f}, where 0 is all '
            'images alike and 1 is every direction; see feature_std in '
            'metrics.jsonl')
