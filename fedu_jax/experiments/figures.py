"""Figures that are readable in print and on a dark page.

The background is transparent, and text is mid grey. A method has the same
colour in all figures, from the palette of Okabe and Ito, which colour-blind
readers can tell apart.
"""

import pathlib
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np

from fedu_jax.experiments import experiment as plans
from fedu_jax.experiments.spread import mean_and_spread

GREY = '#808080'
CLASSES = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9',
           '#999933', '#AA4499', '#882255', '#44AA99')
# For lines that are no method; none of them is the colour of a method.
_OTHERS = ('#B8860B', '#FF595E', '#9B5DE5', '#FFCA3A', '#A47148', '#F15BB5',
           '#5E6472', '#00BBA0')
_COLOURS = {
    'FedU': '#0072B2', 'DAPU': '#0072B2',
    '0.4': '#0072B2',  # the threshold that FedU has
    'FedBYOL': '#D55E00',
    'global': '#D55E00', 'infinite (global)': '#D55E00', 'local': '#4DAF4A',
    '0 (local)': '#4DAF4A', 'FedEMA': '#CC79A7',
    'FedEMA, auto': '#AA4499', 'FedSimSiam': '#009E73', 'FedSimCLR': '#E69F00',
    'FedMoCo v1': '#56B4E9', 'FedMoCo v2': '#44AA99', 'L-DAWA': '#999933',
    'FedCA': '#117733', 'FedSC': '#9C755F',
    'untrained': '#808080', 'one client': '#B0A060',
    'mean of clients alone': '#DDCC77',
    'BYOL, centralised': '#882255', 'supervised FedAvg': '#6666AA'}

STYLE: Any = {
    'savefig.transparent': True, 'text.color': GREY, 'axes.edgecolor': GREY,
    'axes.labelcolor': GREY, 'xtick.color': GREY, 'ytick.color': GREY,
    'axes.facecolor': 'none', 'figure.facecolor': 'none', 'grid.color': GREY,
    'grid.alpha': 0.25, 'axes.grid': True, 'axes.axisbelow': True,
    'axes.spines.top': False, 'axes.spines.right': False, 'font.size': 10,
    'legend.frameon': False, 'savefig.dpi': 150, 'savefig.bbox': 'tight'}


def colour(name: str, place: int) -> str:
  """The colour of a method; for any other name, the colour at a place."""
  return _COLOURS.get(name, _OTHERS[place % len(_OTHERS)])


def draw(plan: plans.Plan, results: list[plans.Result],
         folder: pathlib.Path) -> list[pathlib.Path]:
  """Draws a plan's figures as PNGs in a folder; returns their paths."""
  paths = []
  with matplotlib.rc_context(STYLE):
    for name, figure in plan.draw(results).items():
      paths.append(folder / f'{name}.png')
      figure.savefig(paths[-1])
  return paths


def canvas(width: float = 7, height: float = 4, **choices: Any) -> Any:
  """Makes a figure, with its size in inches, and axes by `subplots`."""
  figure = matplotlib.figure.Figure((width, height), layout='constrained')
  return figure, figure.subplots(**choices)


def _by_round(axes: Any) -> None:
  axes.set_xlabel('round')
  axes.xaxis.get_major_locator().set_params(integer=True)


def _unique(values: Any) -> list[str]:
  return list(dict.fromkeys(values))


def _cell(results: list[plans.Result], row: str,
          column: str) -> plans.Result | None:
  return next((r for r in results
               if (r.arm.row, r.arm.column) == (row, column)), None)


def bars(results: list[plans.Result], score: str, label: str) -> Any:
  """Draws bars: a group for each column, a bar for each row, whiskers 1 sd."""
  rows = _unique(r.arm.row for r in results)
  columns = _unique(r.arm.column for r in results)
  figure, axes = canvas(max(6, 1.2 + 0.28 * len(rows) * len(columns)))
  width = 0.85 / len(rows)
  named = set[str]()
  for i, row in enumerate(rows):
    for j, column in enumerate(columns):
      cell = _cell(results, row, column)
      if cell is None:
        continue
      mean, spread = mean_and_spread([100 * s[score] for s in cell.scores])
      axes.bar(j + (i - (len(rows) - 1) / 2) * width, mean, 0.9 * width,
               yerr=spread or None, ecolor=GREY, capsize=2,
               color=colour(row, i),
               label=None if row in named else row)
      named.add(row)
  axes.set_xticks(range(len(columns)), columns)
  axes.set_ylabel(label)
  axes.grid(axis='x', visible=False)
  axes.legend(loc='upper left', bbox_to_anchor=(1, 1))
  return figure


def lines(results: list[plans.Result], score: str, label: str) -> Any:
  """Draws a line for each row over columns of one kind, whiskers 1 sd."""
  columns = _unique(r.arm.column for r in results)
  figure, axes = canvas(max(6, len(columns)))
  for i, row in enumerate(_unique(r.arm.row for r in results)):
    found = [(j, *mean_and_spread([100 * s[score] for s in cell.scores]))
             for j, column in enumerate(columns)
             if (cell := _cell(results, row, column))]
    x, mean, spread = map(np.array, zip(*found))
    kinds = np.array([columns[j].startswith('Dirichlet') for j in x])
    for kind in dict.fromkeys(kinds):  # no line joins two kinds
      own = kinds == kind
      axes.errorbar(x[own], mean[own], spread[own], marker='o', capsize=3,
                    color=colour(row, i), label=row if kind == kinds[0] else '')
  axes.set_xticks(range(len(columns)), columns, rotation=20, ha='right')
  axes.set_xlabel('how classes are spread over clients')
  axes.set_ylabel(label)
  axes.legend()
  return figure


def sweep(results: list[plans.Result], score: str, name: str,
          label: str) -> Any:
  """Draws a point for each row, in order, with whiskers of 1 sd."""
  figure, axes = canvas()
  found = [mean_and_spread([100 * s[score] for s in r.scores]) for r in results]
  axes.errorbar(range(len(results)), [x for x, _ in found],
                [x for _, x in found], marker='o', capsize=3,
                color=colour('FedU', 0))
  axes.set_xticks(range(len(results)), [r.arm.row for r in results])
  axes.set_xlabel(name)
  axes.set_ylabel(label)
  return figure


def decisions(results: list[plans.Result]) -> Any:
  """Draws the share of clients that take the global predictor, by round.

  It starts at the second round: in the first, all clients take it.
  """
  figure, axes = canvas()
  for i, result in enumerate(results):
    shares = np.array([[100 * np.mean(row['global_predictor'])
                        for row in rows[1:]] for rows in result.rounds]).mean(0)
    axes.plot(np.arange(2, len(shares) + 2), shares,
              color=colour(result.arm.row, i), label=result.arm.row)
  _by_round(axes)
  axes.set_ylabel('clients that take the global predictor, %')
  axes.set_ylim(-3, 103)
  axes.legend()
  return figure


def divergences(results: list[plans.Result]) -> Any:
  """Draws the divergence of each client of the first seed; the mean in bold."""
  figure, axes = canvas()
  for i, result in enumerate(results):
    drift = np.array([row['clients']['divergence'] for row in result.rounds[0]],
                     float)
    x = np.arange(1, len(drift) + 1)
    axes.plot(x, drift, color=_OTHERS[i], alpha=0.35, linewidth=0.8)
    axes.plot(x, drift.mean(1), color=_OTHERS[i], linewidth=2,
              label=result.arm.row)
  _by_round(axes)
  axes.set_title('seed 0: each client, and in bold their mean', fontsize=10)
  axes.set_ylabel('divergence of a client (mean L2 norm over layers)')
  axes.set_ylim(bottom=0)
  axes.legend()
  return figure


def layers(results: list[plans.Result]) -> Any:
  """Draws the divergence of each layer, averaged over the other axes."""
  figure, axes = canvas(8)
  for i, result in enumerate(results):
    names = [k for k in result.rounds[0][0]['clients']
             if k.startswith('divergence/')]
    means = [np.mean([row['clients'][name] for rows in result.rounds
                      for row in rows]) for name in names]
    axes.bar(np.arange(len(names)) + (i - 0.5) * 0.4, means, 0.38,
             color=_OTHERS[i], label=result.arm.row)
  axes.set_title('means over rounds, clients and seeds', fontsize=10)
  axes.set_xticks(range(len(names)), [
      name.removeprefix('divergence/backbone/') for name in names],
      rotation=60, ha='right')
  axes.set_ylabel('divergence (L2 norm)')
  axes.legend()
  return figure
