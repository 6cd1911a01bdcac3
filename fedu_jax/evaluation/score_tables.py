"""Tables and lines of scores, for the console."""

from collections.abc import Mapping
import math

from rich import box
from rich.table import Table
from rich.text import Text

Scores = Mapping[str, float]  # by name: accuracies in 0..1, and those of PLAIN

# Scores that are no accuracies.
PLAIN = 'alignment', 'uniformity', 'effective rank'


def by_encoder(scores: Mapping[str, Scores]) -> Table:
  """Tabulates accuracies in per cent, a row for each encoder."""
  columns = list(dict.fromkeys(k for row in scores.values() for k in row))
  table = Table(box=box.SIMPLE, title='accuracy on the test images, per cent')
  table.add_column('encoder')
  for column in columns:
    table.add_column(column, justify='right')
  for name, row in scores.items():
    table.add_row(name, *(f'{100 * row[c]:.2f}' if c in row else '-'
                          for c in columns))
  return table


def unsound_line(scores: Mapping[str, Scores]) -> str | None:
  """Returns a warning that names the scores of NaN, or None."""
  found = [f'{encoder} ({", ".join(names)})' for encoder, row in scores.items()
           if (names := [name for name, x in row.items() if math.isnan(x)])]
  return (f'warning: no score for {"; ".join(found)}: features or logits are '
          'not finite there') if found else None


def of_one_encoder(title: str, scores: Scores) -> Table:
  """Tabulates scores by name: accuracies in per cent, others as numbers."""
  table = Table(box=box.SIMPLE, title=title, show_header=False)
  table.add_column('score')
  table.add_column('value', justify='right')
  for name, value in scores.items():
    table.add_row(Text(name), f'{value:.4f}' if name in PLAIN
                  else f'{100 * value:.2f} %')
  return table
