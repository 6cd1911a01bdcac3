"""Scores that are kept when several processes compute some."""

from concurrent import futures
import json
import types

import pytest
from rich.console import Console

from fedu_jax.evaluation import protocols
from fedu_jax.training import finished_run
from fedu_jax.training import score_run

NAMES = 'linear', 'knn', 'knn_features', 'geometry'


def known(folder):
  return json.loads((folder / 'evaluation.json').read_text())


def ask(folder, names, rounds=1, encoder='federation', load=lambda: (0, 0)):
  return score_run.ask(folder, names, encoder=encoder,
                       console=Console(quiet=True), trained=(rounds, load))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """Protocols that compute nothing: each scores a half."""
  for name in NAMES:
    monkeypatch.setitem(protocols.PROTOCOLS, name,
                        protocols.Protocol(
                            lambda *_, name=name: {name: 0.5}, labels=False))


def test_what_others_write_while_one_scores_stays(tmp_path, monkeypatch):
  """Of the same encoder, of another one, and of the same one after more rounds.
  """
  def slow(*_):
    ask(tmp_path, 'geometry')
    ask(tmp_path, 'linear', encoder='alone0')
    return {'knn': 0.25}
  monkeypatch.setitem(protocols.PROTOCOLS, 'knn',
                      protocols.Protocol(slow, labels=False))
  assert ask(tmp_path, 'knn') == {'knn': 0.25}
  assert known(tmp_path) == {
      'federation': {'rounds': 1, 'scores': {'geometry': {'geometry': 0.5},
                                             'knn': {'knn': 0.25}}},
      'alone0': {'rounds': 1, 'scores': {'linear': {'linear': 0.5}}}}

  def slower(*_):
    ask(tmp_path, 'geometry', rounds=3)
    return {'knn_features': 0.25}
  monkeypatch.setitem(protocols.PROTOCOLS, 'knn_features',
                      protocols.Protocol(slower, labels=False))
  assert ask(tmp_path, 'knn_features', rounds=2) == {'knn_features': 0.25}
  assert known(tmp_path)['federation'] == {
      'rounds': 3, 'scores': {'geometry': {'geometry': 0.5}}}


def test_scores_of_a_run_begun_anew_replace_those_of_the_old(tmp_path):
  ask(tmp_path, 'geometry', rounds=9)
  ask(tmp_path, 'knn', rounds=2)
  assert known(tmp_path)['federation'] == {
      'rounds': 2, 'scores': {'knn': {'knn': 0.5}}}


def test_many_that_score_at_once_lose_nothing(tmp_path):
  encoders = [f'alone{i}' for i in range(8)]
  with futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(lambda job: ask(tmp_path, job[0], encoder=job[1]),
                  [(name, encoder) for name in NAMES for encoder in encoders]))
  found = known(tmp_path)
  assert found.keys() == set(encoders)
  assert all(found[x]['scores'].keys() == set(NAMES) for x in encoders)


def test_a_run_that_trains_on_while_it_is_read_is_scored_as_it_is(
    tmp_path, monkeypatch):
  """The newest checkpoint was of round 2 at first, and of round 4 when it was
  read. The scores are of round 4.
  """
  saved = iter([2, 4, 4, 4])
  monkeypatch.setattr(finished_run, 'config_of', lambda *_: None)
  monkeypatch.setattr(finished_run, 'rounds_of', lambda *_: next(saved))
  monkeypatch.setattr(finished_run, 'restore',
                      lambda *_: (types.SimpleNamespace(), 0))
  score_run.ask(tmp_path, 'knn', console=Console(quiet=True))
  assert known(tmp_path)['federation']['rounds'] == 4
