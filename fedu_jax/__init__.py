"""FedU in JAX: representations learnt from images that stay on their clients.

The public names, one import a line, and the modules that a notebook needs.
"""

from fedu_jax import augment as augment
from fedu_jax import networks as networks
from fedu_jax import partition as partition
from fedu_jax import sources as sources
from fedu_jax import trees as trees
from fedu_jax.aggregation import aggregate as aggregate
from fedu_jax.errors import BadInput as BadInput
from fedu_jax.evaluation import embed as embed
from fedu_jax.evaluation import knn_accuracy as knn_accuracy
from fedu_jax.evaluation import linear_probe as linear_probe
from fedu_jax.learners.byol import byol as byol
from fedu_jax.learners.byol import byol_step as byol_step
from fedu_jax.local import client_arrays as client_arrays
from fedu_jax.local import init_clients as init_clients
from fedu_jax.local import local_update as local_update
from fedu_jax.local import make_batches as make_batches
from fedu_jax.losses import regression_loss as regression_loss
from fedu_jax.networks import init_online as init_online
from fedu_jax.rounds import map_clients as map_clients
from fedu_jax.rounds import run_round as run_round
from fedu_jax.rules import dapu as dapu
from fedu_jax.rules import fedema as fedema
from fedu_jax.rules import fedema_auto as fedema_auto
from fedu_jax.rules import global_predictor as global_predictor
from fedu_jax.rules import local_predictor as local_predictor
from fedu_jax.state import Batches as Batches
from fedu_jax.state import ClientArrays as ClientArrays
from fedu_jax.state import ClientState as ClientState
from fedu_jax.state import Learner as Learner
from fedu_jax.state import Online as Online
from fedu_jax.state import ServerState as ServerState
from fedu_jax.state import Variables as Variables
