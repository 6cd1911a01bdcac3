"""Values of a config that are valid alone and not together."""

import pytest

from configs import cifar10
from configs import methods
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training.config import checks


@pytest.mark.parametrize('clients, cohort, fits', [
    (64, 0, True), (65, 0, False), (1000, 64, True), (1000, 65, False)])
def test_a_dictionary_has_an_entry_for_each_client_that_trains(
    clients, cohort, fits):
  config = cifar10.get_config()
  methods.METHODS['fedca'](config)
  config.clients, config.cohort = clients, cohort
  config.learner.queue_size = 64
  if fits:
    checks.check(config)
    return
  with pytest.raises(BadInput, match='queue_size is 64.*65 clients'):
    checks.check(config)


@pytest.mark.parametrize('precision, model, fits', [
    ('tensorfloat32', {}, True),
    ('tensorfloat32', {'convolution': 'exact'}, False),
    ('tensorfloat32', {'dtype': 'bfloat16'}, False),
    ('float32', {'convolution': 'exact'}, True),
    ('float32', {'dtype': 'bfloat16'}, True),
    ('default', {'convolution': 'exact', 'dtype': 'bfloat16'}, True)])
def test_tf32_is_refused_where_other_fields_ask_for_other_products(
    precision, model, fits):
  config = cifar10.get_config()
  config.model.update(precision=precision, **model)
  if fits:
    checks.check(config)
    return
  name, value = next(iter(model.items()))
  with pytest.raises(BadInput, match=f'precision is tensorfloat32, but '
                                     f'config.model.{name} is {value}'):
    checks.check(config)


@pytest.mark.parametrize('fields, words', [
    ({'stem': 'imagenet'}, 'stem is imagenet, which needs images of 32 pixels '
     'or more, not 8'),
    ({'name': 'vit_tiny', 'patch': 5}, '8 pixels are no whole number of '
     'patches of 5 pixels.*to 4 or 10'),
    ({'name': 'vit_tiny', 'stem': 'imagenet'}, 'patches of 16'),
    ({'name': 'vit_tiny'}, ''), ({}, ''),
    ({'patch': 4}, 'resnet18 has no patches')])
def test_images_that_a_network_cannot_take_are_refused(fields, words):
  config = cifar10.get_config()
  config.data.image_size = 8
  config.divergence.name = 'squared_distance'
  config.model.update(fields)
  if not words:
    checks.check(config)
    return
  with pytest.raises(BadInput, match=words):
    checks.check(config)


@pytest.mark.parametrize('side, blur, fits', [
    (19, (0.0, 0.1), False), (19, (0.0, 0.0), True), (20, (1.0, 0.1), True),
    (0, (1.0, 0.1), True)])
def test_a_blur_that_would_do_nothing_is_refused(side, blur, fits):
  config = cifar10.get_config()
  config.data.image_size, config.view.blur = side, blur
  if fits:
    checks.check(config)
    return
  with pytest.raises(BadInput, match=r'^config.view.blur .* 20 pixels.*19: set '
                     r'it to \(0, 0\)'):
    checks.check(config)


def test_a_network_without_convolutions_needs_another_divergence():
  config = cifar10.get_config()
  config.model.name = 'vit_tiny'
  with pytest.raises(BadInput, match='conv_distance.*squared_distance'):
    checks.check(config)
