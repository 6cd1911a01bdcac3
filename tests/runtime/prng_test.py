"""The same seed draws the same numbers, whatever the user's JAX settings."""

import jax
import numpy as np
import pytest
from rich.console import Console

from fedu_jax.runtime.checkpoint import Checkpoints
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import finished_run
from fedu_jax.training import prepare
from fedu_jax.training import score_run
from fedu_jax.training import train
from tests.helpers import tiny


def numbers():
  """Draws as runs do: from a seed, split, folded and as bits."""
  key = jax.random.key(3)
  folded = jax.random.fold_in(key, 7)
  return [np.asarray(x) for x in (
      jax.random.key_data(jax.random.split(key, 3)),
      jax.random.key_data(folded), jax.random.bits(folded, (5,)),
      jax.random.normal(folded, (5,)))]


@pytest.mark.parametrize('generator, partitionable', [
    ('threefry2x32', False), ('rbg', True), ('unsafe_rbg', False)])
def test_runs_and_scores_draw_by_one_generator(
    tmp_path, monkeypatch, generator, partitionable):
  """Training, the scores at its end, and later scores use it.

  Each stops at once, and returns what it would have drawn.
  """
  drawn = []

  def stop(*args, **kwargs):
    del args, kwargs
    drawn.append(numbers())
    raise BadInput('far enough')
  for module, name in ((train.checks, 'check'), (prepare, 'data_of')):
    monkeypatch.setattr(module, name, stop)
  config, console = tiny.get_config(), Console(quiet=True)
  want = numbers()
  with jax.default_prng_impl(generator), jax.threefry_partitionable(
      partitionable):
    for begin in (
        lambda: train.train_seeds(config, [0], [str(tmp_path)],
                                  consoles=[console]),
        lambda: train.train_and_evaluate(config, str(tmp_path),
                                         console=console),
        lambda: finished_run.restore(config, tmp_path, 'untrained', console),
        lambda: score_run.ask(tmp_path, 'knn', trained=(1, stop))):
      with pytest.raises(BadInput, match='far enough'):
        begin()
    other = numbers()
  assert len(drawn) == 4
  for found in drawn:
    for a, b in zip(found, want, strict=True):
      np.testing.assert_array_equal(a, b)
  assert not any(np.array_equal(a, b) for a, b in zip(other, want)
                 if a.shape == b.shape and a.size > 2)


def test_a_run_of_another_generator_is_refused(tmp_path):
  with jax.default_prng_impl('rbg'):
    saved = Checkpoints(tmp_path / 'checkpoints', keep=1)
    saved.save(1, {'rng': jax.random.key(0)})
    saved.close()
  again = Checkpoints(tmp_path / 'checkpoints', keep=1)
  with pytest.raises(BadInput, match='another generator'):
    again.restore({'rng': jax.random.key(0)})
  again.close()
