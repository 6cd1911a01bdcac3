"""Encoders that leave a run: loading, exporting and embedding."""
