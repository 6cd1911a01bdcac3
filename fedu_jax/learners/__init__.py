"""The SSL methods: one file and one function each, returning a Learner."""

from fedu_jax.learners.byol import byol
from fedu_jax.learners.fedca import fedca
from fedu_jax.learners.fedsc import fedsc
from fedu_jax.learners.moco import moco
from fedu_jax.learners.simclr import simclr
from fedu_jax.learners.simsiam import simsiam
from fedu_jax.learners.supervised import supervised
