"""FedU in JAX: federated self-supervised learning of image representations.

The images of a client stay on that client. This module lists the public names.
"""

import os

from fedu_jax.core import trees as trees
from fedu_jax.core.aggregation import aggregate as aggregate
from fedu_jax.core.local_training import client_arrays as client_arrays
from fedu_jax.core.local_training import init_clients as init_clients
from fedu_jax.core.local_training import local_update as local_update
from fedu_jax.core.local_training import make_batches as make_batches
from fedu_jax.core.method import Aggregation as Aggregation
from fedu_jax.core.method import Method as Method
from fedu_jax.core.method import UpdateRule as UpdateRule
from fedu_jax.core.rounds import map_clients as map_clients
from fedu_jax.core.rounds import run_round as run_round
from fedu_jax.core.state import Batches as Batches
from fedu_jax.core.state import ClientArrays as ClientArrays
from fedu_jax.core.state import ClientState as ClientState
from fedu_jax.core.state import Learner as Learner
from fedu_jax.core.state import Online as Online
from fedu_jax.core.state import ServerState as ServerState
from fedu_jax.core.state import Variables as Variables
from fedu_jax.core.update_rules import dapu as dapu
from fedu_jax.core.update_rules import fedema as fedema
from fedu_jax.core.update_rules import fedema_auto as fedema_auto
from fedu_jax.core.update_rules import global_predictor as global_predictor
from fedu_jax.core.update_rules import local_predictor as local_predictor
from fedu_jax.data import dataset as dataset
from fedu_jax.data import lazy_arrays as lazy
from fedu_jax.data import partition as partition
from fedu_jax.data import sources as sources
from fedu_jax.data.dataset import Dataset as Dataset
from fedu_jax.data.lazy_arrays import Lazy as Lazy
from fedu_jax.encoders.encoder import Encoder as Encoder
from fedu_jax.evaluation.probes import embed as embed
from fedu_jax.evaluation.probes import knn_accuracy as knn_accuracy
from fedu_jax.evaluation.probes import linear_probe as linear_probe
from fedu_jax.learners import augment as augment
from fedu_jax.learners.byol import byol as byol
from fedu_jax.learners.byol import byol_step as byol_step
from fedu_jax.learners.losses import regression_loss as regression_loss
from fedu_jax.models import networks as networks
from fedu_jax.models.networks import init_online as init_online
from fedu_jax.runtime.errors import BadInput as BadInput


def load(workdir_or_file: 'str | os.PathLike[str]', *,
         encoder: str = 'federation', projector: bool = False,
         network: str = '', image_size: int = 0, normalise: str = ''
         ) -> Encoder:
  """Loads an encoder, to call on images of any size.

  The images of the run are not needed.

  Args:
    workdir_or_file: the folder of a run, a file that `fedu_jax.export` wrote,
      or a safetensors file with weights by torchvision's or timm's names.
    encoder: of a run: 'federation', 'untrained', or 'alone0' and so on.
    projector: of a run: whether features are the projector's output, and not
      those below it. A file has one of them.
    network: of weights that `fedu_jax.export` did not write: a name of
      `networks.NETWORKS`, such as 'resnet18'. The shapes of the weights say the
      stem, the width and the patch.
    image_size: of such weights: the pixels of an image's side; 0 for 224, or
      for those of a ViT's position embeddings.
    normalise: of such weights: 'none', or 'imagenet', which '' stands for.

  Returns:
    The encoder. It computes in full float32.

  Raises:
    BadInput: there is no such encoder, or it is damaged.
  """
  # Training's libraries take a second to import, and nothing else needs them.
  from fedu_jax.encoders.named_network import Named
  from fedu_jax.training import saved_encoder
  return saved_encoder.load(os.fspath(workdir_or_file), encoder=encoder,
                            projector=projector,
                            named=Named(network, image_size, normalise))
