"""FedU on 10,000 images of the real CIFAR-10, for two CPU cores.

  python -m fedu_jax.main --config=configs/cifar10_small.py \
      --config.data.dir=../shared/tfds --workdir=/tmp/cifar10_small

Five clients of two classes and 2,000 images each. configs/cifar10.py is for
39,000 steps of each client; in a run of minutes its networks hardly change. The
differences from it, and why:

- 16 pixels and a ResNet-10 of width 16 with small heads: 2 ms an image;
- batches of 32 and one epoch a round, 62 steps, for 60 rounds. With few steps
  in all, averages must be frequent: with four epochs a round and a rate of 0.05
  to 0.1, clients have divergences of 1.5 to 2.9, and the average encoder scores
  below the untrained one;
- a rate of 0.03 and a decay of 0.98 for the target. A decay of 0.95, and a rate
  of 0.06 with 0.99, learnt less in trials of 3 and 20 rounds;
- crops of 20% at least, and half the jitter: 8% of 16 pixels are 4 by 4;
- probes on batches of 512, to take as many steps on fewer images, and on
  standardised features. An untrained encoder's features hardly vary, and the
  released code's probe would measure their scale.
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
