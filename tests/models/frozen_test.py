"""A frozen part of an encoder keeps its bits, and costs nothing in a round."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedu_jax
from fedu_jax.core import trees
from fedu_jax.core.state import Learner
from fedu_jax.models import frozen
from fedu_jax.models import layers
from fedu_jax.models import networks
from fedu_jax.models import resnet
from fedu_jax.models import vit
from fedu_jax.runtime.errors import BadInput
from fedu_jax.training import step_cost
from fedu_jax.training.config import build
from fedu_jax.training.config import checks
from fedu_jax.training.engine import device_mesh
from fedu_jax.training.engine import round_program
from tests.helpers import small
from tests.helpers import tiny

STAGE = 'layer1'
SIZES = [32, 40]


def config_of(**changes):
  config = tiny.get_config()
  config.update_from_flattened_dict(
      {'model.frozen': STAGE, 'optimizer.weight_decay': 0.1} | changes)
  checks.check(config)
  return config


@functools.cache
def start():
  """The first network, with numbers as a pretrained one has, and images."""
  nets = build.recipe(config_of()).nets
  online = fedu_jax.init_online(nets, jax.random.key(0),
                                jnp.zeros((2, 8, 8, 3)))
  online = jax.tree.map(lambda x: x * 1.1 + 0.01, online)
  images = np.random.RandomState(0).randint(0, 256, (sum(SIZES), 8, 8, 3))
  return online, fedu_jax.client_arrays(
      images.astype(np.uint8), np.split(np.arange(sum(SIZES)), SIZES[:1]))


def mesh():
  """A mesh of one device; its program is that of any mesh."""
  return device_mesh.Layout(len(SIZES), jax.make_mesh(
      (1, 1), (device_mesh.AXIS, device_mesh.DATA),
      axis_types=(jax.sharding.AxisType.Auto,) * 2, devices=jax.devices()[:1]))


@functools.cache
def after_two_rounds(meshed=False, **changes):
  """Runs two rounds; returns the server and the clients."""
  recipe = build.recipe(config_of(**changes))
  online, arrays = start()
  rng = jax.random.key(1)
  server, clients = round_program.init_state(
      recipe, online, arrays.num_examples, rng, jnp.zeros((1, 8, 8, 3)))
  layout = mesh() if meshed else None
  compiled = round_program.compile_round(
      recipe, server, clients, arrays, rng, layout=layout)
  if layout:
    where = (device_mesh.EVERYWHERE, device_mesh.BY_CLIENT,
             device_mesh.BY_CLIENT, device_mesh.EVERYWHERE)
    server, clients, arrays, rng = (
        jax.device_put(x, layout.sharding(at))
        for x, at in zip((server, clients, arrays, rng), where))
  for _ in range(2):
    server, clients, metrics = compiled(server, clients, arrays, rng)
  return jax.device_get((server, clients, metrics))


WAYS = {
    'map': dict(execution='map'), 'mesh': dict(meshed=True),
    'vmap': {'execution': 'vmap', 'rule.name': 'fedema',
             'aggregation.name': 'ldawa'}}


@pytest.mark.parametrize('way', WAYS)
def test_frozen_arrays_keep_their_bits_and_all_others_change(way):
  """In the online network, the target and the server."""
  server, clients, _ = after_two_rounds(**WAYS[way])
  first = frozen.split(start()[0].encoder, STAGE)
  for encoder in (server.online.encoder, clients.online.encoder,
                  clients.target):
    moving, still = frozen.split(encoder, STAGE)
    for now, then in zip(jax.tree.leaves(still), jax.tree.leaves(first[1]),
                         strict=True):
      np.testing.assert_array_equal(now, np.broadcast_to(then, now.shape))
    for now, then in zip(jax.tree.leaves(moving), jax.tree.leaves(first[0]),
                         strict=True):
      assert (np.asarray(now) != np.asarray(then)).any()
  assert len(jax.tree.leaves(still)) > 12


def test_the_divergence_is_of_what_can_move():
  """A mean over all layers would have the zeros of frozen ones in it."""
  _, clients, metrics = after_two_rounds(execution='map')
  by_layer = {name: x for name, x in metrics.items()
              if name.startswith('divergence/')}
  moved = np.stack([x for x in by_layer.values() if x.any()])
  assert 0 < len(moved) < len(by_layer)
  np.testing.assert_allclose(clients.divergence, moved.mean(0), rtol=1e-6)


@pytest.mark.parametrize('part, counts', [
    ('bn1', True), ('layer1_0', True), ('layer2_0', False)])
def test_stored_statistics_count_in_frozen_stages_alone(part, counts):
  """In training, the others normalise by the batch's own."""
  online, _ = start()
  images = jnp.asarray(np.random.RandomState(0).rand(6, 8, 8, 3), jnp.float32)

  def make(nets):
    return Learner(lambda client, _: client, lambda client, x, rng: (
        networks.forward(nets.encoder, client.online.encoder, x)[0], {}), None)
  learner = frozen.learner(make, build.recipe(config_of()).nets, STAGE)

  def output(stats):
    encoder = online.encoder._replace(batch_stats=stats)
    clients = fedu_jax.init_clients(online._replace(encoder=encoder),
                                    np.ones(1))
    client = jax.tree.map(lambda x: x[0], clients)
    return learner.step(learner.init(client, 0), images, None)[0]
  stats = online.encoder.batch_stats
  other = stats | {'backbone': stats['backbone'] | {part: jax.tree.map(
      lambda x: x + 1, stats['backbone'][part])}}
  moved = np.abs(output(other) - output(stats)).max()
  assert moved > 1e-3 if counts else moved == 0


def test_a_plan_counts_what_is_sent_and_computed():
  """Upload and download lose the frozen bytes; the step its backward pass."""
  online, _ = start()
  found, work = {}, {}
  for stage in ('', 'stem', STAGE):
    recipe = build.recipe(config_of(**{'model.frozen': stage}))
    server, client, _ = round_program.shapes(recipe, online, (8, 8, 3))
    found[stage] = round_program.sent(recipe, server, client, 5)
    work[stage] = step_cost.per_image(
        recipe, client, jax.ShapeDtypeStruct((8, 8, 3), jnp.uint8))
  for stage in ('stem', STAGE):
    less = trees.num_bytes(frozen.split(online.encoder, stage)[1])
    assert less > 0
    assert found[stage].up == found[''].up - less
    assert found[stage].down == found[''].down - less
  assert work[STAGE] < work['stem'] < work['']
  # Of a frozen product, only the forward passes remain.
  assert work[''] - work[STAGE] > 0.2 * work['']


NUMBERED = ['conv1', 'bn1', 'layer1_0', 'layer1_1', 'layer2_0', 'layer10_0']
BLOCKS = ['patch_embed', 'cls_token', 'pos_embed', 'blocks_0', 'blocks_1',
          'blocks_11', 'norm']


@pytest.mark.parametrize('stage, names, count', [
    ('stem', NUMBERED, 2), ('layer1', NUMBERED, 4), ('layer2', NUMBERED, 5),
    ('stem', BLOCKS, 3), ('blocks.0', BLOCKS, 4), ('blocks.1', BLOCKS, 5)])
def test_a_stage_has_all_before_it(stage, names, count):
  """Of ResNets and of ViTs, in the order of the arguments here."""
  assert [x for x in names if frozen.is_frozen(stage, x)] == names[:count]


def test_split_and_join_are_inverse():
  encoder = small.online().encoder
  jax.tree.map(np.testing.assert_array_equal,
               frozen.join(*frozen.split(encoder, STAGE)), encoder)
  moving, still = frozen.split(encoder, STAGE)
  assert (trees.num_bytes(moving) + trees.num_bytes(still)
          == trees.num_bytes(encoder))


@pytest.mark.parametrize('stage', ['layer2', 'layer9', 'blocks.0'])
def test_a_stage_that_there_is_not_is_refused(stage):
  """So is the last one: then no layer of the backbone could drift."""
  with pytest.raises(BadInput, match='can be frozen up to stem, layer1'):
    build.recipe(config_of(**{'model.frozen': stage}))
  with pytest.raises(BadInput, match='it must be stem, or such as layer1'):
    config_of(**{'model.frozen': 'head'})


def test_a_vits_blocks_are_stages():
  """The stem is all that makes tokens of an image."""
  nets = networks.Nets(networks.Encoder(
      vit.ViT(2, 1, 4, 4), layers.MLP(8, 4)), layers.MLP(8, 4))
  frozen.check(nets, 'blocks.0')
  with pytest.raises(ValueError, match='up to stem, blocks.0$'):
    frozen.check(nets, 'blocks.1')
  encoder = jax.eval_shape(lambda: fedu_jax.init_online(
      nets, jax.random.key(0), jnp.zeros((2, 8, 8, 3)))).encoder
  moving, still = frozen.split(encoder, 'blocks.0')
  assert set(still.params) == {'patch_embed', 'cls_token', 'pos_embed',
                               'blocks_0'}
  assert set(moving.params['backbone']) == {'blocks_1', 'norm'}
  assert frozen.join(moving, still) == encoder


def test_an_encoder_without_stages_is_refused():
  nets = networks.Nets(layers.MLP(8, 4), layers.MLP(8, 4))
  with pytest.raises(ValueError, match='no part of a MLP has the name'):
    frozen.check(nets, 'stem')
  whole = networks.Nets(networks.Encoder(
      resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), 2), layers.MLP(8, 4)),
                        layers.MLP(8, 4))
  frozen.check(whole, 'layer3')
