"""FedU on 10,000 images of the real CIFAR-10, for two CPU cores.

  python -m fedu_jax.main --config=configs/cifar10_small.py \
      --config.data.dir=../shared/tfds --workdir=/tmp/cifar10_small

Five clients of two classes, 2,000 images each. What differs from
configs/cifar10.py, and why: that one is for 39,000 steps a client, and in a run
of minutes its networks do not leave their initial state.

- 16 pixels and a ResNet-10 of width 16 with small heads: 2 ms an image;
- batches of 32 and one epoch a round, 62 steps, for 60 rounds. With few steps
  in all, clients must meet often: at four epochs a round and a rate of 0.05 to
  0.1 they drift 1.5 to 2.9 apart (divergence) and the mean is worth less than
  the untrained encoder;
- a rate of 0.03 and a target that follows faster (0.98). 0.95, and a rate of
  0.06 with 0.99, learnt less in tries of 3 and 20 rounds;
- crops of 20% at least, and half the jitter: 8% of 16 pixels are 4 by 4;
- probes on batches of 512, to take as many steps on fewer images, and on
  standardised features, because an untrained encoder's hardly vary and the
  reference's probe would then measure their scale.
"""

import ml_collections

from fedu_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
  """Returns CIFAR-10's config at a scale of minutes."""
  config = cifar10.get_config()
  config.rounds = 60
  config.local_epochs = 1
  config.batch_size = 32
  config.data.image_size = 16
  config.data.max_examples = 10_000

  config.model.name = 'resnet10'
  config.model.width = 16
  config.model.hidden = 512
  config.model.features = 256

  config.view.scale = (0.2, 1.0)
  config.view.brightness = 0.4
  config.view.contrast = 0.4
  config.view.saturation = 0.4
  config.view.hue = 0.1

  config.learner.decay = 0.98
  config.learner.first_target = 'copy'
  config.optimizer.learning_rate = 0.03

  config.evaluation.alone = 1
  config.evaluation.probe_batch_size = 512
  config.evaluation.probe_standardise = True
  config.evaluation.labels_per_class = 10
  config.checkpoint.every = 5
  return config
