"""Printed lines are unchanged, even if names have brackets."""

import io
import json

import pytest
from rich.console import Console

from fedu_jax.evaluation import protocols
from fedu_jax.evaluation import score_tables
from fedu_jax.runtime import terminal
from fedu_jax.training import score_run

# Folders of sweeps and of web pages are called so; to Rich these are markup.
NAMES = '/data/[old]/x', '/data/[/b]/x', '/data/[lr=0.1]', 'a :bug: b', '[red]x'


@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize('name', NAMES)
def test_names_are_printed_as_they_are(name, own):
  """On our consoles, and on one that a notebook provides."""
  shown = io.StringIO()
  console = terminal.console(shown) if own else Console(file=shown)
  terminal.say(console, f'{name} is damaged')
  console.print(score_tables.of_one_encoder(
      'federation', {f'transfer to {name}': 0.5}))
  first, *rest = shown.getvalue().splitlines()
  assert first == f'{name} is damaged'
  assert any(f'transfer to {name}  ' in line for line in rest)


@pytest.mark.parametrize('name', NAMES[:2])
def test_a_protocol_of_any_name_is_scored(tmp_path, monkeypatch, name):
  """Rich rejected a status as markup, and the scores were lost."""
  monkeypatch.setitem(protocols.PROTOCOLS, 'linear', protocols.Protocol(
      lambda scorer, online, choice: {choice: 0.5}, labels=False))
  shown = io.StringIO()
  asked = f'linear:{name}'
  found = score_run.ask(
      tmp_path, asked, console=Console(file=shown, force_terminal=True),
      trained=(1, lambda: (0, 0)))
  assert found == {name: 0.5} and name in shown.getvalue()
  assert json.loads((tmp_path / 'evaluation.json').read_text())[
      'federation']['scores'] == {asked: {name: 0.5}}
