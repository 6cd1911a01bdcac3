"""Convolutions for CPU, where XLA's own are slow inside a loop."""
