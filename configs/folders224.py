"""FedU on your own folders of photographs at 224 pixels, one folder a client.

  python -m fedu_jax.main --config=folders224 \
      --config.data.source=folder:<dir> --config.clients=<folders in it> \
      --workdir=/tmp/run

Needs an accelerator. The network is torchvision's ResNet-18. The views are
BYOL's for ImageNet (Grill et al. 2020, appendix B); what follows a colon names
others: --config=folders224:dino. Grey images take the same settings, without
saturation, hue and greyscale: add --config.data.channels=1. For images without
an up, such as a microscope's, add --config.view.vertical_flip=0.5. All other
values are those of configs/cifar10.py.
"""

from collections.abc import Callable

import ml_collections

from fedu_jax.configs import cifar10


def byol(view: ml_collections.ConfigDict) -> None:
  """BYOL's views: every first one is blurred, the second may be solarised.

  BYOL resizes crops with bicubic interpolation, and here it is bilinear.
  """
  view.brightness = 0.4
  view.contrast = 0.4
  view.saturation = 0.2
  view.hue = 0.1
  view.blur = (1.0, 0.1)
  view.solarise = (0.0, 0.2)


def dino(view: ml_collections.ConfigDict) -> None:
  """The global crops of DINO (Caron et al. 2021): BYOL's, of 40 % or more.

  There are no local crops, and the blur is BYOL's, not PIL's.
  """
  byol(view)
  view.scale = (0.4, 1.0)


VIEWS: dict[str, Callable[[ml_collections.ConfigDict], None]] = {
    'byol': byol, 'dino': dino}


def get_config(views: str = 'byol') -> ml_collections.ConfigDict:
  """Returns CIFAR-10's config, changed for folders of photographs.

  Args:
    views: one of VIEWS.
  """
  if views not in VIEWS:
    raise ValueError(f'no views {views!r}: choose from {", ".join(VIEWS)}')
  config = cifar10.get_config()
  config.data.source = 'folder:images'
  config.data.image_size = 224
  config.partition.name = 'natural'
  config.model.stem = 'imagenet'
  config.learner.first_target = 'copy'
  VIEWS[views](config.view)
  return config
