"""Measures of an encoder that need no labels, and what they say of collapse.

Collapsed features are alike for all images, or vary in few directions. Neither
the loss nor the accuracy on unlabelled images can show it.
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from fedu_jax.core.state import Variables
from fedu_jax.evaluation import geometry
from fedu_jax.evaluation.encoder_scores import Scorer
from fedu_jax.learners import losses

# A spread below it counts as collapse, and below the next as near to it.
# Measured on digits with a narrow ResNet-6, from round 3 on: FedU 0.75 to 0.80,
# SimSiam 0.75 to 0.79, MoCo v1 with its linear head 0.23 to 0.30. Without
# stop-gradient: SimSiam 0.12 to 0.06; BYOL with an aliased first target and no
# EMA 0.09 to 0.07.
COLLAPSED = 0.12
NEAR = 0.2
# Directions that features vary in; fewer count as collapse, or as near to it.
# Few collapses show here: after four rounds of the quickstart, 58 directions of
# 64 with FedU and 55 with SimSiam without stop-gradient, which had collapsed to
# a spread of 0.04 to 0.06, where FedU had 0.66 to 0.81.
FEWEST = 2.0
FEW = 4.0
_IMAGES = 2048  # that are measured; a rank needs more images than directions
_OF_A_CLIENT = 32  # at least, so that its spread means something


class Measured(NamedTuple):
  """The measures of one encoder.

  Attributes:
    effective_rank: see `geometry.effective_rank`, of features below the
      projector, as are the next two.
    alignment: see `geometry.alignment`.
    uniformity: see `geometry.uniformity`.
    spread: see `losses.feature_std`, of the projector's output, by client.
  """
  effective_rank: float
  alignment: float
  uniformity: float
  spread: dict[str, float]


class Sample(NamedTuple):
  """Images that are measured, in place of all."""
  scorer: Scorer  # its training images are the sample
  clients: list[np.ndarray]  # for each client, its rows of the sample


def rows(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Chooses the images that are measured, evenly over clients.

  Args:
    parts: the rows of each client's images.

  Returns:
    The rows of the first clients, spread evenly over each client's images; at
    most 2,048 in all, and at least 32 of a client that has as many.
  """
  each = max(_OF_A_CLIENT, _IMAGES // len(parts))
  return [part[np.unique(np.linspace(0, len(part) - 1, min(each, len(part))
                                     ).astype(int))]
          for part in parts[:_IMAGES // each]]


def measure(scorer: Scorer, clients: Sequence[np.ndarray],
            encoder: Variables) -> Measured:
  """Measures an encoder on images without labels.

  Args:
    scorer: as in `Sample`.
    clients: as in `Sample`.
    encoder: the encoder's variables.
  """
  images = scorer.train_images
  z = scorer.embed(encoder, images)
  out = scorer.embed(encoder, images, below_projector=False)
  return Measured(
      effective_rank=float(geometry.effective_rank(z)),
      alignment=scorer.alignment(encoder),
      uniformity=float(geometry.uniformity(z)),
      spread={f'client {i}': float(losses.feature_std(out[own]))
              for i, own in enumerate(clients)})


def verdict(measured: Measured) -> tuple[str, str]:
  """Says in one word and in one sentence whether features have collapsed.

  Returns:
    'healthy', 'collapsing' or 'collapsed'; and a sentence that gives the
    numbers, and what to try.
  """
  name, spread = min(measured.spread.items(),
                     key=lambda x: -math.inf if math.isnan(x[1]) else x[1])
  rank = measured.effective_rank
  numbers = (f'the features of {name} have a spread of {spread:.2f} (0 = all '
             'images alike, 1 = every direction), and those of all clients '
             f'vary in about {rank:.1f} directions')
  if not (spread >= COLLAPSED and rank >= FEWEST):  # NaN counts as collapse
    return 'collapsed', (
        f'collapsed: {numbers}, so that the encoder tells images hardly '
        'apart: train anew with a lower optimizer.learning_rate, with '
        'learner.stop_gradient and learner.ema on, or with larger batches')
  if spread < NEAR or rank < FEW:
    return 'collapsing', (
        f'collapsing: {numbers}: watch feature_std in metrics.jsonl; if it '
        'falls, lower optimizer.learning_rate, raise learner.decay, or weaken '
        'the views, before more rounds')
  return 'healthy', f'healthy: {numbers}'


def record(measured: Measured) -> dict[str, Any]:
  """The measures and the verdict as summary.json keeps them."""
  return measured._asdict() | {'verdict': verdict(measured)[0]}


def table(measured: Measured) -> Table:
  """Tabulates the measures; of the clients' spreads, the least and the most."""
  spread = measured.spread.values()
  shown = Table(box=box.SIMPLE, title='the encoder without labels',
                show_header=False)
  shown.add_column('measure')
  shown.add_column('value', justify='right')
  shown.add_row('effective rank', f'{measured.effective_rank:.1f}')
  shown.add_row('alignment', f'{measured.alignment:.4f}')
  shown.add_row('uniformity', f'{measured.uniformity:.4f}')
  shown.add_row('feature spread by client',
                f'{min(spread):.3f} to {max(spread):.3f}')
  return shown
