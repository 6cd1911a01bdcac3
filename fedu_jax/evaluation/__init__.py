"""Evaluation: probes, protocols, and the scores of a run's encoders."""
