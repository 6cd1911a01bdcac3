"""Numbers out: probes, protocols, and the scores of a run's encoders."""
