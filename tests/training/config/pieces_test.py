"""Names in a config and their pieces, which are checked before a run."""

import importlib
import pathlib
import sys
import types
from typing import Any

import pytest

from configs import smoke
from fedu_jax.core import method
from fedu_jax.core import update_rules
from fedu_jax.core.method import Aggregation, Method, UpdateRule
from fedu_jax.learners import losses
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config import binding
from fedu_jax.training.config import checks
from fedu_jax.training.config import pieces
from tests.helpers import strangers


def too_wide(config):
  if config['model.features'] > 4:
    raise ValueError('config.model.features is above 4')


OWN: dict[str, Any] = {
    'whole': Method(strangers.learner, strangers.aggregation,
                    UpdateRule(strangers.rule)),
    'with_rule': Method(strangers.learner, rule=strangers.rule),
    'learner_only': Method(strangers.learner),
    'labelled': Method(strangers.learner, labelled=True),
    'checked': Method(strangers.learner, check=too_wide),
    'ill_check': Method(strangers.learner, check=lambda config: config['x']),
    'mean': Aggregation(strangers.aggregation),
    'fresh': UpdateRule(strangers.rule),
    'constant': Aggregation(strangers.aggregation, memory=()),
    'short': Aggregation(strangers.aggregation,
                         upload=lambda client: client),
    'nothing': UpdateRule(strangers.rule, download=3),
}


@pytest.fixture(autouse=True)
def mine(monkeypatch):
  """Makes a module `mine` with these records."""
  module = types.ModuleType('mine')
  vars(module).update(OWN)
  monkeypatch.setitem(sys.modules, 'mine', module)


def config_of(**names):
  config = smoke.get_config()
  for section, name in names.items():
    config[section].name = f'mine:{name}'
  return config


@pytest.mark.parametrize('names', [
    dict(learner='whole', aggregation='whole', rule='whole'),
    dict(learner='with_rule', rule='with_rule'),
    dict(learner='learner_only'), dict(learner='labelled'),
    dict(aggregation='mean', rule='fresh')])
def test_records_are_found_by_name(names):
  config = config_of(**names)
  checks.check(config)
  assert binding.labelled(config) == (names.get('learner') == 'labelled')
  if 'whole' in names.values():
    assert binding.aggregation(config).fn.func is strangers.aggregation
    assert binding.rule(config).fn.func is strangers.rule


@pytest.mark.parametrize('names, complaint', [
    (dict(learner='whole'), 'mine:whole is all three or none'),
    (dict(rule='whole'), 'mine:whole is all three or none'),
    (dict(learner='with_rule'), 'mine:with_rule is learner and rule or none'),
    (dict(aggregation='with_rule'),
     'a method without aggregation of its own; choose fedavg'),
    (dict(rule='learner_only'), 'a method without rule of its own'),
    (dict(rule='mean'), "rule.name is 'mine:mean', which cannot be imported"),
    (dict(learner='fresh'), "'mine:fresh', which cannot be imported"),
    (dict(aggregation='constant'),
     r"whose memory cannot be called as \(clients\)"),
    (dict(aggregation='short'),
     r"whose upload cannot be called as \(client, cohort\)"),
    (dict(rule='nothing'), r"whose download cannot be called as \(server\)"),
    (dict(learner='checked'), '^config.model.features is above 4$'),
    (dict(learner='ill_check'), "whose check failed .KeyError: 'x'"),
])
def test_records_that_break_the_contract(names, complaint):
  with pytest.raises(BadInput, match=complaint):
    checks.check(config_of(**names))


def test_one_line_in_a_dict_makes_a_method_ours(monkeypatch):
  """It is found, offered in messages, and must be named in all sections."""
  monkeypatch.setitem(pieces.METHODS, 'whole', OWN['whole'])
  config = smoke.get_config()
  for section in ('learner', 'aggregation', 'rule'):
    config[section].name = 'whole'
  checks.check(config)
  config.rule.name = 'dapu'
  with pytest.raises(BadInput, match='whole is all three or none'):
    checks.check(config)
  config.rule.name = 'whol'
  with pytest.raises(BadInput, match="mean 'whole'.*, fedca, .*, whole, or"):
    checks.check(config)


def test_a_function_has_the_default_contract():
  rule = method.rule_of(update_rules.dapu)
  assert rule == UpdateRule(update_rules.dapu) == method.rule_of(rule)
  assert rule.memory('anything') == ()
  assert pieces.find('rule', 'dapu') == rule
  assert pieces.find('learner', 'byol').aggregation is None


@pytest.mark.parametrize('old', pieces._MOVED)
def test_a_module_that_moved_is_still_there(old):
  importlib.import_module(pieces.present(f'{old}:x').partition(':')[0])
  with pytest.raises(ModuleNotFoundError):  # or it needs no row
    importlib.import_module(old)


def test_a_run_that_began_before_a_move_goes_on():
  """It finds its functions, and its config is the one that names them anew."""
  old, new = (f'fedu_jax.{x}:nt_xent' for x in ('losses', 'learners.losses'))
  assert pieces.find('loss', old) is losses.nt_xent
  assert not checks.differing({'loss.name': old}, {'loss.name': new})
  assert checks.differing({'loss.name': old}, {'loss.name': 'nt_xent'})


def test_only_its_dict_names_a_piece():
  """No other module asks for a piece by its name: a new one needs its line.

  Only `experiments` may, which names what the papers compare, and `fields`,
  which has the defaults.
  """
  root = pathlib.Path(pieces.__file__).parents[2]
  texts = {str(path.relative_to(root)): path.read_text()
           for folder in ('core', 'learners', 'models', 'training', 'plan',
                          'evaluation')
           for path in root.joinpath(folder).rglob('*.py')
           if path.name != 'fields.py'}
  for section in ('learner', 'aggregation', 'rule', 'model'):
    for name in pieces.choices(section):
      users = [path for path, text in texts.items() if f"'{name}'" in text]
      # `global_predictor` is also the name of a metric.
      assert len(users) == 1 or name == 'global_predictor', (name, users)
