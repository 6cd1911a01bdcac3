"""Means over seeds, and how far the seeds lie apart."""

from collections.abc import Sequence
import statistics


def mean_and_spread(values: list[float]) -> tuple[float, float]:
  """The mean, and the standard deviation with n - 1; 0 for one value."""
  spread = statistics.stdev(values) if values[1:] else 0.0
  return statistics.fmean(values), spread


def as_text(values: Sequence[float], *, factor: float = 1) -> str:
  """Mean ± standard deviation, each times a factor, as tables have it."""
  mean, spread = mean_and_spread([factor * x for x in values])
  return f'{mean:.2f}' + (f' ± {spread:.2f}' if len(values) > 1 else '')
