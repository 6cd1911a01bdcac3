"""The SSL methods: one file and one function each, returning a Learner."""

from fedu_jax.learners.byol import byol as byol
from fedu_jax.learners.fedca import fedca as fedca
from fedu_jax.learners.fedsc import fedsc as fedsc
from fedu_jax.learners.moco import moco as moco
from fedu_jax.learners.simclr import simclr as simclr
from fedu_jax.learners.simsiam import simsiam as simsiam
from fedu_jax.learners.supervised import supervised as supervised
