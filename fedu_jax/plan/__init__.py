"""python -m fedu_jax.plan: what a config needs, before it runs."""
