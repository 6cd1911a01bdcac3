"""The SSL methods. Each file has a learner, or a record of a whole method."""

from collections.abc import Callable

from fedu_jax.core.method import Method
from fedu_jax.core.state import Learner
from fedu_jax.learners import byol
from fedu_jax.learners import fedca
from fedu_jax.learners import fedsc
from fedu_jax.learners import moco
from fedu_jax.learners import simclr
from fedu_jax.learners import simsiam
from fedu_jax.learners import supervised

# config.learner.name -> a function or a record. A record that has its own
# aggregation or rule is also found under config.aggregation.name and
# config.rule.name.
METHODS: dict[str, Method | Callable[..., Learner]] = {
    'byol': byol.BYOL,
    'simsiam': simsiam.SIMSIAM,
    'simclr': simclr.simclr,
    'moco': moco.MOCO,
    'fedca': fedca.FEDCA,
    'fedsc': fedsc.FEDSC,
    'supervised': supervised.SUPERVISED,
}
