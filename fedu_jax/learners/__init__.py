"""The SSL methods: one file and one function each, returning a Learner."""

from fedu_jax.learners.byol import byol as byol
