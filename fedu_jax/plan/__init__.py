"""python -m fedu_jax.plan: predicts what a config needs, before it runs."""
