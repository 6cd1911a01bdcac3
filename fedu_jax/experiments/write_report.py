"""Writes an experiment's report: Markdown tables, PNGs and an HTML page."""

import base64
import pathlib
import re
from typing import Any

import jinja2

from fedu_jax.evaluation import score_tables
from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments import figures
from fedu_jax.experiments import recorded_runs
from fedu_jax.experiments import spread
from fedu_jax.runtime import json_files

_PUBLISHED = 'linear', 'classifier'  # scores with published numbers


def write(plan: plans.Plan, results: list[plans.Result], folder: pathlib.Path,
          scale: plans.Scale) -> pathlib.Path:
  """Writes `results.json`, `tables.md`, PNGs, `report.html`, `runs.jsonl.gz`.

  Returns:
    The path of the page, which shows everything and needs no other file.
  """
  folder.mkdir(parents=True, exist_ok=True)
  json_files.write(folder / 'results.json', {
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
  page.write_text(_html(plan.title, note, tables, pictures), encoding='utf-8')
  recorded_runs.write(
      folder / recorded_runs.FILE,
      {'title': plan.title, 'scale': scale.name, 'seeds': seeds},
      {run.name: run for result in results for run in result.folders},
      layers=plan.layers)
  return page


def _as_json(results: list[plans.Result]) -> list[dict[str, Any]]:
  """The results as plain values, for `results.json`."""
  return [{'row': r.arm.row, 'column': r.arm.column, 'encoder': r.arm.encoder,
           'runs': [folder.name for folder in r.folders], 'scores': r.scores}
          for r in results]


def _table(plan: plans.Plan, results: list[plans.Result], caption: str,
           score: str) -> plans.Table:
  """Makes the table of one score, with the published numbers in brackets."""
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
          values, factor=1 if score in score_tables.PLAIN else 100)
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
  """Fills the page's template; the template escapes all text."""
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('fedu_jax.experiments', ''),
      autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
  environment.filters['whole'] = _whole
  return environment.get_template('report.html.jinja').render(
      title=title, note=note, tables=tables, figures=[
          (path.stem, base64.b64encode(path.read_bytes()).decode())
          for path in pictures])


def _whole(cell: str) -> str:
  """Allows line breaks between numbers only, not within one and its source."""
  return re.sub(r' (?=±)|(?<=±) |(?<=[\[ ][UE]) ', '\N{NO-BREAK SPACE}', cell)
