"""Views have PIL's values, bit for bit, for given parameters."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance
import pytest

from configs import cifar10
from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import recorded_runs
from fedu_jax.experiments.tables import linear_evaluation
from fedu_jax.learners import augment
from fedu_jax.learners import crops
from fedu_jax.learners import eight_bit_colours
from fedu_jax.training.config import checks

ENHANCE = {0: ImageEnhance.Brightness, 1: ImageEnhance.Contrast,
           2: ImageEnhance.Color}
STRENGTHS = dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)


def pictures(count, size):
  """Makes smooth, noisy, grey and saturated pictures in turn, u8."""
  draw = np.random.RandomState(0)
  for i in range(count):
    noise = draw.randint(0, 256, (size, size, 3)).astype(np.uint8)
    if i % 4 == 0:
      noise = np.asarray(Image.fromarray(noise[:4, :4]).resize((size, size)))
    elif i % 4 == 2:
      noise = noise[..., :1].repeat(3, -1)
    elif i % 4 == 3:
      noise = np.where(noise > 127, 255, 0).astype(np.uint8)
    yield noise


def pil_hue(image, shift):
  """Does torchvision's adjust_hue on a PIL image."""
  hsv = np.array(image.convert('HSV'))
  hsv[..., 0] += np.int32(shift * 255).astype(np.uint8)
  return Image.fromarray(hsv, 'HSV').convert('RGB')


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_every_colour_turns_as_pils():
  """For each eighth red. All 2^24 colours were once checked too."""
  turn = jax.jit(eight_bit_colours.adjust_hue)
  grey = jax.jit(eight_bit_colours.grey)
  green, blue = np.meshgrid(np.arange(256), np.arange(256))
  for red in [*range(0, 256, 8), 255]:
    image = np.stack([np.full_like(green, red), green, blue], -1)
    shift = np.float32((red - 128) / 256)
    picture = Image.fromarray(image.astype(np.uint8))
    image = image.astype(np.float32)
    np.testing.assert_array_equal(turn(image, shift), pil_hue(picture, shift))
    np.testing.assert_array_equal(grey(image)[..., 0], picture.convert('L'))


@pytest.mark.parametrize('size', [8, 16, 32])
def test_views_are_pils(size):
  """Box, flip, jitter in any order, and grey equal PIL's operations.

  At these sizes the weights of the resizing are exact. A blend may be one level
  off where XLA fuses its product and sum, which C rounds separately.
  """
  config = augment.ViewConfig()
  view = jax.jit(augment.make_view())
  images = np.stack(list(pictures(64, size)))
  rng = jax.random.key(size)
  got = np.asarray(view(images, rng)) * 255
  np.testing.assert_allclose(got, np.round(got), atol=1e-4)  # whole levels
  wrong = 0
  for image, one, key in zip(images, np.round(got),
                             jax.random.split(rng, len(images))):
    want = in_pil(image, key, config)
    wrong += (one != want).any(-1).mean() / len(images)
  assert wrong < 1e-3


def in_pil(image, key, config):
  """Makes one view with PIL's operations and the draws of `augment`."""
  rng_box, rng_jitter, rng_chance = jax.random.split(key, 3)
  box = crops.crop_box(rng_box, *image.shape[:2], scale=config.scale,
                         ratio=config.ratio)
  top, left, height, width = (int(x) for x in box)
  picture = Image.fromarray(image).crop(
      (left, top, left + width, top + height)).resize(
          image.shape[:2], Image.Resampling.BILINEAR)
  flip, jitter, grey = jax.random.uniform(rng_chance, (3,))
  if flip < config.flip:
    picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  if jitter < config.jitter:
    keys = jax.random.split(rng_jitter, 3)
    factors = jax.random.uniform(
        keys[1], (3,), minval=jnp.maximum(0, 1 - jnp.array([0.8] * 3)),
        maxval=1 + jnp.array([0.8] * 3))
    shift = jax.random.uniform(keys[2], minval=-0.2, maxval=0.2)
    for i in np.asarray(jax.random.permutation(keys[0], 4)):
      picture = pil_hue(picture, np.float32(shift)) if i == 3 else (
          ENHANCE[i](picture).enhance(float(factors[i])))
  if grey < config.greyscale:
    picture = picture.convert('L').convert('RGB')
  return np.asarray(picture, np.float32)


@pytest.mark.parametrize('size', [20, 96])
def test_crops_of_other_sizes_are_pils_nearly_everywhere(size):
  """Their weights are rounded, in PIL to 22 bits, so ties may differ.

  Two in a hundred values are one level off, up as often as down.
  """
  wrong, most, shift = [], 0, []
  crop = jax.jit(lambda image, box: augment.EIGHT_BIT.resize(
      image, *crops.matrices(image, *box)))
  for seed, image in enumerate(pictures(24, size)):
    draw = np.random.RandomState(seed)
    height, width = draw.randint(1, size + 1, 2)
    top, left = draw.randint(size - height + 1), draw.randint(size - width + 1)
    want = np.asarray(Image.fromarray(image).crop(
        (left, top, left + width, top + height)).resize(
            (size, size), Image.Resampling.BILINEAR), np.float32)
    got = crop(image.astype(np.float32), np.float32([top, left, height, width]))
    wrong.append(np.mean(got != want))
    shift.append(np.mean(got - want))
    most = max(most, np.abs(got - want).max())
  assert most <= 1 and np.mean(wrong) < 0.03, (most, np.mean(wrong))
  assert abs(np.mean(shift)) < 0.01, np.mean(shift)


@pytest.mark.parametrize('which', ENHANCE)
def test_fractions_are_brighter_by_half_a_level(which):
  """The mean difference between a blend with fractions and PIL's."""
  name = ('brightness', 'contrast', 'saturation')[which]
  unrounded = jax.jit(getattr(augment, f'adjust_{name}'))
  draw = np.random.RandomState(1)
  shifts = []
  for image in [x for i, x in enumerate(pictures(400, 16)) if i % 4 < 2]:
    factor = np.float32(draw.uniform(0.2, 1.8))
    want = np.asarray(ENHANCE[which](Image.fromarray(image)).enhance(
        float(factor)), np.float32)
    ours = np.asarray(unrounded(image / np.float32(255), factor)) * 255
    inside = (want > 0) & (want < 255)
    shifts.append((ours - want)[inside].mean())
  assert 0.4 < np.mean(shifts) < 0.55, np.mean(shifts)


def test_a_large_white_image_has_the_mean_white():
  """Its sum exceeds 2^24, above which float32 skips whole numbers."""
  luma = jnp.full((300, 301, 1), 255.).at[0, 0].set(0)
  assert eight_bit_colours.mean(luma) == 255
  for size, level in [((3, 1, 1), 1), ((4, 1, 1), 2)]:  # means 4/3 and 3/2
    total = {3: [4, 0, 0], 4: [6, 0, 0, 0]}[size[0]]
    assert eight_bit_colours.mean(
        jnp.array(total, jnp.float32).reshape(size)) == level


def test_no_hue_means_no_way_through_hsv():
  """PIL's HSV alone changes colours; torchvision leaves a hue of 0 out."""
  image = next(pictures(1, 16)).astype(np.float32)
  assert (eight_bit_colours.adjust_hue(image, 0.) != image).any()
  same = augment.colour_jitter(image, jax.random.key(0), brightness=0.,
                               contrast=0., saturation=0., hue=0.,
                               arithmetic=augment.EIGHT_BIT)
  np.testing.assert_array_equal(same, image)


def test_the_released_law_is_the_default_and_recorded_runs_are_found():
  """Earlier runs have no such field, and kept fractions."""
  assert augment.ViewConfig() == augment.ViewConfig(
      **cifar10.get_config().view)
  assert checks.complete({})['view.eight_bit'] is False
  _, runs = recorded_runs.read(
      pathlib.Path('benchmarks/results/cpu/linear_evaluation-cpu',
                   recorded_runs.FILE))
  plan = linear_evaluation.plan(plans.SCALES['cpu'])
  for arm in plan.arms:
    recorded = runs[plans.key_of(arm.config, seed=0)]['config.json']
    want = json.loads(json.dumps(checks.flatten(arm.config)))
    assert checks.complete(recorded)['view.eight_bit'] == want[
        'view.eight_bit']
    assert recorded['learner.name'] == want['learner.name']
