"""What an experiment ends with: Markdown tables, PNGs, one HTML page."""

import base64
import html
import pathlib
import re
from typing import Any

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments import spread
from fedu_jax.training import round_report

_PUBLISHED = 'linear', 'classifier'  # what the papers' numbers may be of
_STYLE = '''
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto;
        margin-bottom: 1.5rem }
caption { text-align: left; font-weight: 600; padding: .5rem 0;
          white-space: nowrap }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #8884;
         text-align: right; vertical-align: top }
th:first-child { text-align: left; white-space: nowrap }
small, figcaption { color: #808080 }
img { max-width: 100% }
'''


def write(plan: plans.Plan, results: list[plans.Result], folder: pathlib.Path,
          scale: plans.Scale) -> pathlib.Path:
  """Writes `results.json`, `tables.md`, PNGs and `report.html`.

  Returns:
    The page, which holds all of it and needs no other file.
  """
  folder.mkdir(parents=True, exist_ok=True)
  round_report.write_json(folder / 'results.json', {
      'title': plan.title, 'scale': scale.name,
      'results': _as_json(results)})
  tables = [_table(plan, results, caption, score)
            for caption, score in plan.tables.items()] + plan.more(results)
  seeds = len(results[0].scores)
  note = (f'Scale {scale.name}: {scale.caption}. Mean ± standard deviation '
          f'over {seeds} seed{"s" if seeds > 1 else ""}, accuracies in per '
          f'cent; in brackets the published number. Published: {plan.source}')
  (folder / 'tables.md').write_text('\n\n'.join(
      [f'# {plan.title}', note, *map(_markdown, tables)]) + '\n')
  pictures = figures.draw(plan, results, folder)
  page = folder / 'report.html'
  page.write_text(_html(plan.title, note, tables, pictures))
  return page


def _as_json(results: list[plans.Result]) -> list[dict[str, Any]]:
  """The results as plain values: what `results.json` holds."""
  return [{'row': r.arm.row, 'column': r.arm.column, 'encoder': r.arm.encoder,
           'runs': [folder.name for folder in r.folders], 'scores': r.scores}
          for r in results]


def _table(plan: plans.Plan, results: list[plans.Result], caption: str,
           score: str) -> plans.Table:
  """One score of all arms that have it, and the published numbers beside it.
  """
  results = [r for r in results if score in r.scores[0]]
  columns = list(dict.fromkeys(r.arm.column for r in results))
  cells = {(r.arm.row, r.arm.column): r for r in results}
  lines = [['', *columns]]
  for row in dict.fromkeys(r.arm.row for r in results):
    line = [row]
    for column in columns:
      known = (plan.published.get((row, column)) if score in _PUBLISHED
               else None)
      if (row, column) not in cells:
        line.append('–' + (f' [{known}]' if known else ''))
        continue
      values = [s[score] for s in cells[row, column].scores]
      text = spread.as_text(
          values, factor=1 if score in round_report.PLAIN else 100)
      line.append(text + (f' [{known}]' if known else ''))
    lines.append(line)
  return caption, lines


def _markdown(table: plans.Table) -> str:
  caption, (head, *lines) = table
  rows = [head, ['---'] + ['---:'] * (len(head) - 1), *lines]
  return f'**{caption}**\n\n' + '\n'.join(
      '| ' + ' | '.join(row) + ' |' for row in rows)


def _html(title: str, note: str, tables: list[plans.Table],
          pictures: list[pathlib.Path]) -> str:
  def row(cells, tag):
    return '<tr>' + f'<th>{html.escape(cells[0])}</th>' + ''.join(
        f'<{tag}>{whole(x)}</{tag}>' for x in cells[1:]) + '</tr>'

  def whole(text):  # a line breaks between numbers, not in one or its source
    return re.sub(' (?=±)|(?<=±) |(?<=[[ ][UE]) ', '&nbsp;', html.escape(text))
  parts = [
      '<!doctype html>', '<html lang="en">', '<meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width">',
      f'<title>{html.escape(title)}</title>', f'<style>{_STYLE}</style>',
      f'<h1>{html.escape(title)}</h1>', f'<p><small>{html.escape(note)}'
      '</small></p>']
  for caption, (head, *lines) in tables:
    parts += ['<table>', f'<caption>{html.escape(caption)}</caption>',
              row(head, 'th'), *(row(line, 'td') for line in lines), '</table>']
  for path in pictures:
    data = base64.b64encode(path.read_bytes()).decode()
    parts.append(f'<figure><img alt="{html.escape(path.stem)}" '
                 f'src="data:image/png;base64,{data}">'
                 f'<figcaption>{html.escape(path.stem)}</figcaption></figure>')
  return '\n'.join(parts) + '\n'
