"""Whether what clients learn is still worth anything: collapse, and a warning.

Nothing in a loss tells of collapse: it falls as it should, while all images
become one point. The spread of the features tells.
"""

import numpy as np

from fedu_jax.training import round_report

# Below, features have collapsed. On digits, narrow ResNet-6, from round 3 on:
# FedU 0.75 to 0.80, SimSiam 0.75 to 0.79, MoCo v1, whose head is linear, 0.23
# to 0.30; without stop-gradient, SimSiam 0.12 to 0.06, BYOL whose target was
# the online encoder itself in the first round, and has stayed, 0.09 to 0.07.
COLLAPSED = 0.12
SETTLED = 3  # rounds; it takes some to fall


class Collapse:
  """Looks at a federation's rounds, and tells of a collapse once."""

  def __init__(self) -> None:
    self._told = False

  def warning(self, row: round_report.Row) -> str:
    """What a person must be told after a round; '' if there is nothing.

    Args:
      row: of the round, where the learner reports 'feature_std' (see
        `losses.feature_std`) under 'clients', with arrays as values.
    """
    clients = row['clients']
    spread = clients.get('feature_std')
    if self._told or spread is None or row['round'] < SETTLED:
      return ''
    # A learner of one's own may report several numbers a client.
    spread = np.asarray(spread).reshape(len(spread), -1).min(1)
    low = (spread < COLLAPSED) & (clients['steps'] > 0)
    if not low.any():
      return ''
    self._told = True
    return (f"warning: in round {row['round']} the features of "
            f"{round_report.names(row['cohort'][low])} have collapsed: their "
            f'standard deviation is {np.min(spread[low]):.4f}, where 0 is all '
            'images alike and 1 is every direction; see feature_std in '
            'metrics.jsonl')
