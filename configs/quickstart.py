"""A federation in a few minutes on two cores, on data that needs no download.

  python -m fedu_jax.main --config=configs/quickstart.py --workdir=/tmp/digits

The 1,797 handwritten digits of scikit-learn, 8x8 pixels, on five clients of two
digits each. The differences from configs/cifar10.py, and why:

- a narrow ResNet-10, because an 8x8 image needs no deeper network;
- views without flips (a mirrored digit is another sign), without hue or
  saturation (digits are grey), and with gentle crops (an 8% crop is 2 pixels);
- batches of 32 and more epochs a round, because a client has 290 images; a
  higher rate and a faster target, because the run has hundreds of steps, not
  39,000;
- probes on small batches, to take as many steps on fewer images, and on
  standardised features: an untrained encoder's features hardly vary, and the
  released code's probe would measure their scale;
- a second probe on ten labels a class, because scores saturate with all labels.
"""

import ml_collections

from fedu_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
  """Returns CIFAR-10's config, changed for digits and a run of minutes."""
  config = cifar10.get_config()
  config.rounds = 8
  config.local_epochs = 10
  config.batch_size = 32
  config.data.source = 'digits'

  config.model.name = 'resnet10'
  config.model.width = 16
  config.model.hidden = 256
  config.model.features = 128

  config.view.scale = (0.5, 1.0)
  config.view.flip = 0.0
  config.view.brightness = 0.4
  config.view.contrast = 0.4
  config.view.saturation = 0.0
  config.view.hue = 0.0
  config.view.greyscale = 0.0

  config.learner.decay = 0.98
  config.learner.first_target = 'copy'
  config.optimizer.learning_rate = 0.06

  config.evaluation.every = 2
  config.evaluation.alone = 1
  config.evaluation.knn_neighbours = 20
  config.evaluation.probe_batch_size = 128
  config.evaluation.probe_standardise = True
  config.evaluation.labels_per_class = 10
  config.checkpoint.every = 2
  return config
