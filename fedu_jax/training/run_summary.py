"""summary.json: the scores, the speed and the config of a run that is done."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fedu_jax.core.state import Online
from fedu_jax.evaluation.encoder_scores import best, Scorer
from fedu_jax.training.config.config_dict import Config
from fedu_jax.training.config import registry

Scores = dict[str, dict[str, float]]  # by encoder and by score


def scores_of(scorer: Scorer, *, untrained: Online, alone: Sequence[Online],
              federation: Online) -> Scores:
  """Scores all networks of a run.

  Args:
    scorer: of the run's data.
    untrained: the network that the server sent out first. It is scored as it is
      and with BatchNorm statistics of the training images, and the best counts.
    alone: of each client that was trained by itself.
    federation: the global network after the last round.
  """
  scores = {'untrained': best([scorer.all(untrained),
                               scorer.all(scorer.fitted(untrained))])}
  each = [scorer.all(online) for online in alone]
  scores |= {f'client {k} alone': own for k, own in enumerate(each)}
  if len(each) > 1:
    scores[f'mean of {len(each)} alone'] = {
        name: float(np.mean([own[name] for own in each])) for name in each[0]}
  return scores | {'federation': scorer.all(federation)}


def summary_of(config: Config, scores: Scores, speed: dict[str, float], *,
               wall: float, files: dict[str, Any] | None,
               extensions: list[dict[str, Any]]) -> dict[str, Any]:
  """Makes the summary of a run.

  Args:
    config: of the run.
    scores: what `scores_of` returns; empty if there was nothing to score.
    speed: images per second and kin, over all rounds.
    wall: seconds from the start of this process's work to its end.
    files: counts of the image files that were read; None: no folder was.
    extensions: the times when the run got more rounds.
  """
  def score(name, of):
    return scores.get(of, {}).get(name)
  return {
      'rounds': config.rounds, 'clients': config.clients,
      'knn_accuracy': score('knn', 'federation'),
      'knn_accuracy_untrained': score('knn', 'untrained'),
      'linear_accuracy': score('linear', 'federation'),
      'linear_accuracy_untrained': score('linear', 'untrained'),
      'scores': scores, **speed, 'wall_seconds': wall,
      'device': jax.devices()[0].device_kind,
      'jax': jax.__version__, 'config': registry.flatten(config),
      **({'files': files} if files else {}),
      **({'extensions': extensions} if extensions else {})}
