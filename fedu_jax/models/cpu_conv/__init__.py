"""Convolutions on CPU, written by hand where XLA's own are slow in a loop."""
