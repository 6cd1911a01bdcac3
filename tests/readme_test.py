"""The README's Python is executed, and its commands name what exists."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


@pytest.fixture(autouse=True)
def one_setting(monkeypatch):
  """The notebook's reader has JAX's default: broadcasting is allowed."""
  import jax
  with jax.numpy_rank_promotion('allow'):
    yield


def test_the_snippet_runs():
  """The composition by hand, on images made here, as printed."""
  blocks = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
  assert len(blocks) == 2
  names = {}
  for block in blocks:
    exec(compile(block, 'README.md', 'exec'), names)
  assert names['server'].round == 2  # each block trains a round
  assert names['clients'].last_round.tolist() == [1, 1, 1]
  assert 0 < float(names['metrics']['loss'].mean()) < 8


def test_its_paths_exist():
  ours = r'(?<![\w/])(?:configs|tests|benchmarks|fedu_jax)/[\w/.]*\w'
  for path in re.findall(ours, README):
    assert (ROOT / path).exists(), path


def test_its_flags_are_fields():
  from fedu_jax import settings
  for name in re.findall(r'--config\.([\w.]+)', README):
    assert name in settings.FIELDS, name
