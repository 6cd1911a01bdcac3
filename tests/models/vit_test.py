"""Vision transformers: weights, statistics and dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import methods
from configs import smoke
from fedu_jax.models import networks
from fedu_jax.models import vit
from fedu_jax.training import forecast
from fedu_jax.training.config import build

IMAGES = np.random.RandomState(0).rand(4, 8, 8, 3).astype(np.float32)


def backbone(**choices):
  return vit.ViT(**(dict(depth=1, heads=2, width=8, patch=4) | choices))


@pytest.fixture(scope='module')
def drawn():
  return networks.variables(backbone().init(
      jax.random.key(0), IMAGES, train=True))


def test_weights_are_drawn_as_timm_draws_them(drawn):
  params = drawn.params
  qkv = params['blocks_0']['attn']['qkv']
  assert qkv['kernel'].std() == pytest.approx(0.02, rel=0.1)
  np.testing.assert_array_equal(qkv['bias'], 0)
  assert params['pos_embed'].std() == pytest.approx(0.02, rel=0.2)
  assert np.abs(params['cls_token']).max() < 1e-5
  bound = (4 * 4 * 3)**-0.5
  assert 0.9 * bound < np.abs(params['patch_embed']['kernel']).max() <= bound


def test_a_backbone_has_no_statistics_and_no_other_images_in_its_features(
    drawn):
  assert drawn.batch_stats == {}
  y, after = networks.forward(backbone(), drawn, IMAGES, views=2)
  assert after.batch_stats == {}
  alone = backbone().apply(drawn._asdict(), IMAGES[:1], train=False)
  np.testing.assert_allclose(y[:1], alone, rtol=1e-4, atol=1e-6)
  assert networks.take_views(networks.vit_tiny())


def test_places_count(drawn):
  """Without position embeddings, patches could change places."""
  swapped = np.concatenate([IMAGES[:, 4:], IMAGES[:, :4]], 1)
  wide = drawn._replace(params=drawn.params | {
      'pos_embed': 50 * drawn.params['pos_embed']})
  for variables, differ in [(wide, True), (drawn._replace(
      params=drawn.params | {'pos_embed': drawn.params['pos_embed'] * 0}),
                                           False)]:
    ours, other = (backbone().apply(variables._asdict(), x, train=False)
                   for x in (IMAGES, swapped))
    assert (np.abs(ours - other).max() > 1e-4) == differ


def test_bfloat16_computes_narrow_and_keeps_wide(drawn):
  wide = backbone().apply(drawn._asdict(), IMAGES, train=True)
  narrow = backbone(dtype='bfloat16').apply(drawn._asdict(), IMAGES, train=True)
  assert narrow.dtype == jnp.float32
  np.testing.assert_allclose(narrow, wide, atol=0.05)
  assert np.abs(narrow - wide).max() > 1e-4


@pytest.mark.parametrize('method', ['fedu', 'simclr', 'moco', 'fedsc'])
def test_methods_train_a_network_without_statistics(method, monkeypatch):
  """A step keeps the structure of its state, so that a loop can carry it."""
  monkeypatch.setattr(networks, '_DEPTH', 1)
  config = smoke.get_config()
  methods.METHODS[method](config)
  config.model.update(name='vit_tiny', projector_layers=1, predictor_layers=1)
  config.divergence.name = 'squared_distance'
  recipe = build.recipe(config)
  _, client, rng = forecast.shapes(recipe, (8, 8, 3))
  assert client.online.encoder.batch_stats == {}

  def step(client, images, rng):
    state = recipe.learner.init(client, jnp.int32(0))
    return state, recipe.learner.step(state, images, rng)[0]
  before, after = jax.eval_shape(step, client, jax.ShapeDtypeStruct(
      (32, 8, 8, 3), jnp.uint8), rng)
  assert jax.tree.structure(before) == jax.tree.structure(after)
