"""Wrong names, and the names that were meant."""

import pytest

from fedu_jax.runtime import suggest
from fedu_jax.training.config.fields import FIELDS


@pytest.mark.parametrize('name, wanted', [
    ('optimizer.lr', 'optimizer.learning_rate'),  # initials
    ('lr', 'optimizer.learning_rate'),
    ('learning_rate', 'optimizer.learning_rate'),  # without its section
    ('optim.learning_rate', 'optimizer.learning_rate'),
    ('optimizer.wd', 'optimizer.weight_decay'),
    ('optimizer.weight-decay', 'optimizer.weight_decay'),
    ('bs', 'batch_size'), ('batchsize', 'batch_size'),
    ('epochs', 'local_epochs'), ('num_clients', 'clients'),
    ('ronds', 'rounds'), ('Rounds', 'rounds'),  # slips
    ('rule.treshold', 'rule.threshold'), ('rule.nam', 'rule.name'),
    ('mom', 'optimizer.momentum'), ('learner.temp', 'learner.temperature'),
    ('partition.classes', 'partition.classes_per_client'),
    ('data.path', 'data.source'), ('model.arch', 'model.name'),
    ('evaluation.knn_k', 'evaluation.knn_neighbours'),
    ('devices_per', 'devices_per_client')])
def test_what_was_meant(name, wanted):
  assert suggest.near(name, FIELDS) == wanted
  assert suggest.meant(name, FIELDS) == f'; did you mean {wanted!r}?'


@pytest.mark.parametrize('name', ['xyzzy', 'a.b.c', '', '.', 'foo',
                                  'optimizer.name', 'rule.warmup'])
def test_what_is_like_nothing(name):
  assert suggest.near(name, FIELDS) == ''
  assert suggest.meant(name, FIELDS) == ''


def test_every_field_is_nearest_to_itself():
  for name in FIELDS:
    assert suggest.near(name, FIELDS) == name
    assert suggest.near(name.upper().replace('_', '-'), FIELDS) == name


def test_other_names_for_fields_are_of_fields():
  assert set(suggest._ALSO.values()) <= FIELDS.keys()
