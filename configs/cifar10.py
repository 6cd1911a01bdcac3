"""FedU on CIFAR-10, non-IID, with the values of the papers and released code.

  python -m fedu_jax.main --config=configs/cifar10.py --workdir=/tmp/cifar10

Needs an accelerator. The papers (Zhuang et al. 2021, known here by its poster
and the author's blog; Zhuang et al. 2022) state five clients that all train,
two classes for each client, 100 rounds, a ResNet-18, and in 2022 five local
epochs. Every other value is the default of the released code (EasyFL fedssl),
which appeared after both papers: batches of 128, SGD with its rate, momentum
and decay, the target's 0.99, the threshold of 0.4, the views, the heads and the
evaluation. No command line of a FedU run was published.

For FedU on this data, split and network, by linear probe, the papers print
78.71 (2021) and 80.52 +- 0.21 (2022, table 3). They do not say with which of
these values.
"""

import ml_collections

from fedu_jax.training.config import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Returns all fields of a run; fedu_jax/training/config/fields.py has them.

  The values of this experiment are their defaults, so nothing is set here.
  """
  return config_dict.defaults()
