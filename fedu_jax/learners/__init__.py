"""The SSL methods, one file each. A method is a function that returns a Learner.
"""

from fedu_jax.learners.byol import byol as byol
