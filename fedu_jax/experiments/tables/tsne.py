"""t-SNE pictures of representations, by choice of upload and update."""

import json
from typing import Any

import numpy as np
from rich.console import Console

from fedu_jax.evaluation import probes
from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.runtime import durable_files
from fedu_jax.training import finished_run

_ARMS: dict[str, tuple[dict[str, Any], str]] = {
    'untrained': ({}, 'untrained'), 'one client': ({}, 'alone0'),
    'FedU': ({}, 'federation'),
    'update both': ({'rule__name': 'global_predictor', 'rule__updates': 'both'},
                    'federation'),
    'update target': ({'rule__name': 'global_predictor',
                       'rule__updates': 'target'}, 'federation'),
    'aggregate target': ({'rule__name': 'global_predictor',
                          'aggregation__name': 'fedavg_target'}, 'federation')}


def plan(scale: plans.Scale) -> plans.Plan:
  """Returns an arm for each network to draw, non-IID."""
  data = next(iter(scale.data))
  arms = [plans.Arm(row, data, plans.make(scale, data=data, **changes), encoder)
          for row, (changes, encoder) in _ARMS.items()]
  return plans.Plan(
      'Representations', arms, 'linear,geometry',
      {'Linear probe': 'linear', 'Alignment (lower is better)': 'alignment',
       'Uniformity (lower is better)': 'uniformity'}, {},
      'the picture exists (Zhuang et al. 2021); it has no numbers.',
      lambda results: {'tsne': _embeddings(results)})


def _embeddings(results: list[plans.Result]) -> Any:
  """Draws t-SNE of the test features of the first seed, coloured by class."""
  columns = 3
  lines = -(-len(results) // columns)
  figure, grid = figures.canvas(
      9, 3 * lines, nrows=lines, ncols=columns, squeeze=False)
  for axes, result in zip(grid.flat, results):
    flat, labels = _flattened(result)
    for c in np.unique(labels):
      axes.scatter(*flat[labels == c].T, s=4, color=figures.CLASSES[
          int(c) % len(figures.CLASSES)], linewidths=0, label=str(c))
    axes.set_title(result.arm.row, color=figures.GREY)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
  for axes in grid.flat[len(results):]:
    axes.set_axis_off()
  figure.legend(*grid.flat[0].get_legend_handles_labels(), title='class',
                loc='outside right center', markerscale=3)
  return figure


def _flattened(result: plans.Result) -> tuple[np.ndarray, np.ndarray]:
  """Returns the points [N, 2] of 1,000 test images, and their classes [N].

  The points are kept in the run's folder, because its checkpoint may be gone
  when a page is drawn again.
  """
  from sklearn import manifold
  folder = result.folders[0]
  path = folder / f'tsne-{result.arm.encoder}.json'
  if not path.exists():
    scorer, online = finished_run.restore(
        finished_run.config_of(folder, result.data_dir), folder,
        result.arm.encoder, Console(quiet=True))
    images = scorer.test_images[:1000]
    features = probes.embed(probes.features, scorer.nets.encoder,
                            online.encoder, images)
    flat = manifold.TSNE(
        perplexity=min(30, len(images) // 4), init='pca',
        random_state=0).fit_transform(np.asarray(features))
    durable_files.write(path, json.dumps({
        'points': flat.astype(float).round(3).tolist(),
        'classes': scorer.test_labels[:1000].tolist()}).encode())
  kept = json.loads(path.read_text())
  return np.array(kept['points']), np.array(kept['classes'])
