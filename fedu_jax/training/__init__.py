"""Training: from a config to a trained run, its workdir and its console."""
