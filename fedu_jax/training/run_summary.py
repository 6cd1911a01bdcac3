"""summary.json: the scores, the speed and the config of a finished run."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from fedu_jax.core.state import Online
from fedu_jax.evaluation import label_free
from fedu_jax.evaluation.encoder_scores import best
from fedu_jax.evaluation.encoder_scores import Scorer
from fedu_jax.evaluation.label_free import Sample
from fedu_jax.runtime import terminal
from fedu_jax.training.config import checks
from fedu_jax.training.config.config_dict import Config

Scores = dict[str, dict[str, float]]  # by encoder and by score


def scores_of(scorer: Scorer, *, untrained: Online, alone: Sequence[Online],
              federation: Online) -> Scores:
  """Scores all networks of a run.

  Args:
    scorer: the scorer for the run's data.
    untrained: the server's first network. It is scored unchanged and with
      BatchNorm statistics of the training images, and the best scores count.
    alone: the networks of clients that trained alone.
    federation: the server's network after the last round.
  """
  scores = {'untrained': best([scorer.all(untrained),
                               scorer.all(scorer.fitted(untrained))])}
  each = [scorer.all(online) for online in alone]
  scores |= {f'client {k} alone': own for k, own in enumerate(each)}
  if len(each) > 1:
    scores[f'mean of {len(each)} alone'] = {
        name: float(np.mean([own[name] for own in each])) for name in each[0]}
  return scores | {'federation': scorer.all(federation)}


def label_free_of(sample: Sample | None, federation: Online,
                  console: Console) -> dict[str, Any]:
  """Measures the federation without labels, and prints what it says.

  Args:
    sample: the images that are measured; None measures nothing.
    federation: the server's network after the last round.
    console: the console to print on.

  Returns:
    The measures and the verdict, for `summary_of`.
  """
  if sample is None:
    return {}
  with console.status('measuring without labels'):
    measured = label_free.measure(*sample, federation.encoder)
  console.print(label_free.table(measured))
  terminal.say(console, label_free.verdict(measured)[1])
  return label_free.record(measured)


def summary_of(config: Config, scores: Scores, speed: dict[str, float], *,
               measures: dict[str, Any], wall: float,
               files: dict[str, Any] | None,
               devices: dict[str, Any],
               extensions: list[dict[str, Any]]) -> dict[str, Any]:
  """Makes the summary of a run.

  Args:
    config: the config of the run.
    scores: the result of `scores_of`; empty if nothing was scored.
    speed: images per second and other figures, over all rounds.
    measures: the result of `label_free_of`; empty if there are scores.
    wall: the seconds that this process took for the run.
    files: counts of the image files that were read; None without a folder.
    devices: the devices that trained, see `accelerators.record`.
    extensions: the records of extensions to more rounds.
  """
  def score(name, of):
    return scores.get(of, {}).get(name)
  return {
      'rounds': config.rounds, 'clients': config.clients,
      'knn_accuracy': score('knn', 'federation'),
      'knn_accuracy_untrained': score('knn', 'untrained'),
      'linear_accuracy': score('linear', 'federation'),
      'linear_accuracy_untrained': score('linear', 'untrained'),
      'scores': scores, **({'label_free': measures} if measures else {}),
      **speed, 'wall_seconds': wall,
      **devices, 'jax': jax.__version__, 'config': checks.flatten(config),
      **({'files': files} if files else {}),
      **({'extensions': extensions} if extensions else {})}
