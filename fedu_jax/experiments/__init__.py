"""The tables and figures of the papers, one file and one command each.

  python -m fedu_jax.experiments --list
  python -m fedu_jax.experiments predictor --scale=cpu --workdir=/tmp/work

An experiment is a module with `plan(scale) -> Plan`: its arms, the protocols
that score them, and its figures.
"""

NAMES = ('linear_evaluation', 'semi_supervised', 'transfer', 'protocol',
         'predictor', 'threshold', 'divergence', 'tsne', 'heterogeneity')
