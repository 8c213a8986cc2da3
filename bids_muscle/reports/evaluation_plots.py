"""Plots of an evaluation: Dice of each scan, correlation and Bland-Altman."""

from __future__ import annotations

import base64
import io
from math import isfinite
from typing import TYPE_CHECKING

from bids_muscle.statistics.evaluation import ALL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Colours of the sides, distinguishable for the colour-blind.
COLOURS = {'right': '#E69F00', 'left': '#0072B2', ALL: '#4c5a67'}
NAMES = {
    'mfi_ratio_pct': 'MFI, ratio of means (%)',
    'mfi_pct': 'MFI, mean of voxels (%)',
    'volume_ml': 'Volume (ml)',
}


def figure_uri(figure: Figure) -> str:
    """Return a figure as a data URI; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format='png', dpi=90, metadata={'Software': None})
    return 'data:image/png;base64,' + base64.b64encode(stream.getvalue()).decode('ascii')


def dice_plot(table: pd.DataFrame) -> Figure:
    """Draw the Dice of each label in each scan, and the mean."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(table.sort_values('index')['name']))
    figure = Figure(figsize=(8, 1 + 0.35 * len(names)), layout='constrained')
    axes = figure.subplots()
    for place, name in enumerate(names):
        rows = table[table['name'] == name]
        values = rows['dice'].dropna()
        colour = COLOURS[rows['side'].iloc[0]]
        axes.plot(values, [place] * len(values), 'o', color=colour, alpha=0.6, markersize=4)
        if len(values):
            axes.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color='black')
    lowest = table['dice'].min()
    axes.set(xlim=(max(0, lowest - 0.05) if isfinite(lowest) else 0, 1), xlabel='Dice (bar: mean)')
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=0.3)
    return figure


def agreement_plots(table: pd.DataFrame) -> list[tuple[str, Figure]]:
    """Draw correlation and Bland-Altman plots of each muscle, as Weber 2021, Figures 3 and 4."""
    from matplotlib.figure import Figure

    from bids_muscle.statistics.agreement import agreement

    figures = []
    for measure, name in NAMES.items():
        kind, unit = measure.rsplit('_', 1)
        test, reference = f'{kind}_test_{unit}', f'{kind}_reference_{unit}'
        # As in the table: a muscle that one of them lacks has no measure to agree on.
        there = (table['volume_test_ml'] > 0) & (table['volume_reference_ml'] > 0)
        known = table[there].dropna(subset=[test, reference])
        muscles = list(dict.fromkeys(known.sort_values('index')['muscle']))
        if not muscles:
            continue
        figure = Figure(figsize=(8, 3 * len(muscles)), layout='constrained')
        panels = figure.subplots(len(muscles), 2, squeeze=False)
        for (scatter, bland), muscle in zip(panels, muscles, strict=True):
            for side, rows in known[known['muscle'] == muscle].groupby('side'):
                x, y = rows[reference].to_numpy(), rows[test].to_numpy()
                look = {'color': COLOURS[side], 'label': side, 'alpha': 0.7}
                scatter.plot(x, y, 'o', markersize=4, **look)
                bland.plot((x + y) / 2, y - x, 'o', markersize=4, **look)
                found = agreement(y, x)
                for level, style in (
                    (found.bias, '-'),
                    (found.loa_low, '--'),
                    (found.loa_high, '--'),
                ):
                    if isfinite(level):
                        bland.axhline(level, color=COLOURS[side], linestyle=style, linewidth=1)
            bland.axhline(0, color='grey', linewidth=1)
            scatter.axline((0, 0), slope=1, color='grey', linewidth=1)
            scatter.set(title=muscle, xlabel=f'{name}, reference', ylabel=f'{name}, test')
            bland.set(title=muscle, xlabel=f'{name}, mean', ylabel='test - reference')
            scatter.legend()
        figures.append((name, figure))
    return figures
