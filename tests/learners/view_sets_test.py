"""The views of configs/folders224.py are those that the papers state."""

import pytest

from configs import cifar10
from configs import folders224
from fedu_jax.learners import augment
from fedu_jax.training.config import checks

# Brightness, contrast, saturation, hue, and their probability: BYOL's appendix
# B, and `DataAugmentationDINO` of DINO's code.
SAID = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, jitter=0.8,
            greyscale=0.2, flip=0.5, vertical_flip=0.0, blur=(1.0, 0.1),
            blur_sigma=(0.1, 2.0), solarise=(0.0, 0.2), ratio=(3 / 4, 4 / 3))


@pytest.mark.parametrize('name, scale', [
    ('byol', (0.08, 1.0)), ('dino', (0.4, 1.0))])
def test_they_are(name, scale):
  config = folders224.get_config(name)
  checks.check(config)
  assert config.model.stem == 'imagenet' and config.data.image_size == 224
  assert dict(config.view) == SAID | dict(scale=scale, eight_bit=True)
  assert set(config.view) == set(augment.ViewConfig._fields)


def test_there_are_no_others():
  with pytest.raises(ValueError, match='choose from byol, dino'):
    folders224.get_config('moco')


def test_the_fields_defaults_are_the_views():
  """A view of ones own code has the distribution that a config has."""
  assert dict(cifar10.get_config().view) == augment.ViewConfig()._asdict()
