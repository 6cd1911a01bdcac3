"""Means and standard deviations over seeds."""

from collections.abc import Sequence
import statistics


def mean_and_spread(values: list[float]) -> tuple[float, float]:
  """Returns the mean and the standard deviation (n - 1); 0 for one value."""
  spread = statistics.stdev(values) if values[1:] else 0.0
  return statistics.fmean(values), spread


def as_text(values: Sequence[float], *, factor: float = 1) -> str:
  """Formats mean ± standard deviation for a table, each times a factor."""
  mean, spread = mean_and_spread([factor * x for x in values])
  return f'{mean:.2f}' + (f' ± {spread:.2f}' if len(values) > 1 else '')
