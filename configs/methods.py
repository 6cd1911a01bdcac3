"""FedU's rivals, upper bounds and ablations, each as a change to a config.

  python -m fedu_jax.main --config=configs/methods.py:simclr --workdir=/tmp/run

Sizes, temperatures and rates are the released code's (EasyFL fedssl, model.py
and client.py), except where a method says otherwise.
"""

from collections.abc import Callable

import ml_collections

from fedu_jax.configs import cifar10


def fedu(config: ml_collections.ConfigDict) -> None:
  """FedU: configs/cifar10.py unchanged."""
  del config


def fedbyol(config: ml_collections.ConfigDict) -> None:
  """BYOL on clients; encoder and predictor are averaged and shared."""
  config.rule.name = 'global_predictor'


def fedema(config: ml_collections.ConfigDict) -> None:
  """FedEMA (Zhuang et al. 2022) with a constant scale."""
  config.rule.name = 'fedema'


def fedema_auto(config: ml_collections.ConfigDict) -> None:
  """FedEMA (Zhuang et al. 2022); each client's first drift sets its scale."""
  config.rule.name = 'fedema_auto'


def ldawa(config: ml_collections.ConfigDict) -> None:
  """L-DAWA (Rehman et al. 2023): the server weights each layer of a client."""
  config.rule.name = 'global_predictor'
  config.aggregation.name = 'ldawa'


def simsiam(config: ml_collections.ConfigDict) -> None:
  """SimSiam (Chen & He 2021) on clients."""
  config.learner.name = 'simsiam'
  config.rule.name = 'global_predictor'


def simclr(config: ml_collections.ConfigDict) -> None:
  """SimCLR (Chen et al. 2020) on clients, without a predictor."""
  config.learner.name = 'simclr'
  config.learner.temperature = 0.07
  config.model.predictor_layers = 0
  config.rule.name = 'global_predictor'


def moco(config: ml_collections.ConfigDict) -> None:
  """MoCo v1 (He et al. 2020): linear head, half the jitter, constant rate."""
  config.learner.name = 'moco'
  config.learner.temperature = 0.07
  config.model.projector_layers = 1
  config.model.predictor_layers = 0
  config.model.features = 128
  config.optimizer.schedule = 'constant'
  config.view.brightness = 0.4
  config.view.contrast = 0.4
  config.view.saturation = 0.4
  config.view.hue = 0.1
  config.rule.name = 'global_predictor'


def moco_v2(config: ml_collections.ConfigDict) -> None:
  """MoCo v2 (Chen et al. 2020): a head of two layers, a temperature of 0.2."""
  view = config.view.to_dict()
  moco(config)
  config.view.update(view)
  config.learner.temperature = 0.2
  config.model.projector_layers = 2
  wide = {'resnet50': 32, 'resnet6': 2, 'vit_tiny': 3, 'vit_small': 6}.get(
      config.model.name, 8)
  config.model.hidden = wide * config.model.width  # as the representation
  config.optimizer.schedule = 'cosine'


def fedca(config: ml_collections.ConfigDict) -> None:
  """FedCA (Zhang et al. 2020) without its alignment to a public model.

  The size of the dictionary could not be obtained. Here it is eight batches,
  because larger ones learnt less: see `fedu_jax/learners/fedca.py`.
  """
  simclr(config)
  config.learner.queue_size = 8 * config.batch_size
  config.learner.name = 'fedca'
  config.aggregation.name = 'fedca'
  config.rule.name = 'fedca'


def fedsc(config: ml_collections.ConfigDict) -> None:
  """FedSC (Jing et al. 2024): the spectral contrastive loss of all clients."""
  config.learner.name = 'fedsc'
  config.aggregation.name = 'fedsc'
  config.rule.name = 'fedsc'
  config.model.predictor_layers = 0


def supervised(config: ml_collections.ConfigDict) -> None:
  """FedAvg with labels (McMahan et al. 2017), an upper bound.

  FedU's paper does not give its setting. Here it trains as the SSL methods do.
  """
  config.learner.name = 'supervised'
  config.model.projector_layers = 0
  config.model.predictor_layers = 1
  config.model.features = 100 if config.data.source.endswith('100') else 10
  config.rule.name = 'global_predictor'


def centralised(config: ml_collections.ConfigDict) -> None:
  """BYOL with all images on one client, an upper bound."""
  config.clients = 1
  config.partition.name = 'iid'
  config.rule.name = 'global_predictor'


def no_stop_gradient(config: ml_collections.ConfigDict) -> None:
  """FedBYOL with a gradient through the target's outputs."""
  fedbyol(config)
  config.learner.stop_gradient = False


def no_ema(config: ml_collections.ConfigDict) -> None:
  """FedBYOL with a target that stays as in the client's first round."""
  fedbyol(config)
  config.learner.ema = False


def no_ema_no_stop_gradient(config: ml_collections.ConfigDict) -> None:
  """Both changes: in the first round nothing prevents collapse."""
  no_ema(config)
  config.learner.stop_gradient = False


def no_predictor(config: ml_collections.ConfigDict) -> None:
  """FedBYOL without a predictor: the projector's output is the prediction."""
  fedbyol(config)
  config.model.predictor_layers = 0


def one_layer_predictor(config: ml_collections.ConfigDict) -> None:
  """FedBYOL with a linear predictor."""
  fedbyol(config)
  config.model.predictor_layers = 1


METHODS: dict[str, Callable[[ml_collections.ConfigDict], None]] = {
    method.__name__: method for method in (
        fedu, fedbyol, fedema, fedema_auto, ldawa, simsiam, simclr, moco,
        moco_v2, fedca, fedsc,
        supervised, centralised, no_stop_gradient, no_ema,
        no_ema_no_stop_gradient, no_predictor, one_layer_predictor)}


def get_config(name: str = 'fedu') -> ml_collections.ConfigDict:
  """Returns the config of configs/cifar10.py with the changes of a method."""
  if name not in METHODS:
    raise ValueError(f'no method {name!r}: choose {", ".join(METHODS)}')
  config = cifar10.get_config()
  METHODS[name](config)
  return config
