"""Plots of an evaluation: Dice of each scan, correlation and Bland-Altman."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.anatomy.labels import UNSIDED
from bids_muscle.statistics.evaluation import ALL, once_each, people_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours of the sides, distinguishable for the colour-blind.
COLOURS = {
    'right': '#E69F00',
    'left': '#0072B2',
    UNSIDED: '#009E73',
    'middle': '#009E73',
    ALL: '#4c5a67',
}
NAMES = {
    'mfi_ratio_pct': 'MFI, ratio of means (%)',
    'mfi_pct': 'MFI, mean of voxels (%)',
    'volume_ml': 'Volume (ml)',
}


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format='png', dpi=100, metadata={'Software': None})
    return stream.getvalue()


def as_uri(content: bytes) -> str:
    """Return a PNG as a data URI."""
    return 'data:image/png;base64,' + base64.b64encode(content).decode('ascii')


def dice_plot(table: pd.DataFrame) -> Figure:
    """Draw the Dice of each label in each scan, and the mean over people."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(table.sort_values('index')['name']))
    figure = Figure(figsize=(8, 1 + 0.35 * len(names)), layout='constrained')
    axes = figure.subplots()
    for row, name in enumerate(names):
        rows = table[table['name'] == name]
        values = rows['dice'].dropna()
        colour = COLOURS[rows['side'].iloc[0]]
        axes.plot(values, [row] * len(values), 'o', color=colour, alpha=0.6, markersize=4)
        if len(values):
            mean = values.groupby(people_of(rows)).mean().mean()
            axes.plot([mean] * 2, [row - 0.3, row + 0.3], color='black')
    lowest = table['dice'].min()
    axes.set(xlim=(max(0, lowest - 0.05) if isfinite(lowest) else 0, 1), xlabel='Dice (bar: mean)')
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=0.3)
    return figure


def agreement_plots(table: pd.DataFrame) -> dict[str, tuple[str, Figure]]:
    """Draw correlation and Bland-Altman plots of each muscle, as Weber 2021, Figures 3 and 4.

    Lines are over both sides together, as there; the table has each side. Each person is one
    point of a side, as in the table.

    Returns
    -------
    dict
        Name of the measure and figure, by its column.
    """
    from matplotlib.figure import Figure

    figures = {}
    for measure, name in NAMES.items():
        kind, unit = measure.rsplit('_', 1)
        test, reference = f'{kind}_test_{unit}', f'{kind}_reference_{unit}'
        complete = once_each(table, test, reference).dropna(subset=[test, reference])
        muscles = list(dict.fromkeys(complete.sort_values('index')['muscle']))
        if not muscles:
            continue
        figure = Figure(figsize=(8, 3 * len(muscles)), layout='constrained')
        panels = figure.subplots(len(muscles), 2, squeeze=False)
        for (scatter, bland), muscle in zip(panels, muscles, strict=True):
            rows = complete[complete['muscle'] == muscle]
            sides = {
                side: (each[test].to_numpy(), each[reference].to_numpy())
                for side, each in rows.groupby('side')
            }
            draw_correlation(scatter, sides, name)
            draw_bland_altman(bland, sides, name)
            for axes in (scatter, bland):
                axes.set_title(muscle)
        figures[measure] = name, figure
    return figures


def draw_correlation(
    axes: Axes, groups: Mapping[str, tuple[np.ndarray, np.ndarray]], name: str
) -> None:
    """Draw reference against test, the best fit (dashed) and the fit through the origin (solid).

    Parameters
    ----------
    axes
        Where to.
    groups
        (n,) test and reference by the group that gives the colour.
    name
        Measure, with its unit.
    """
    from bids_muscle.statistics.agreement import calibrate

    for group, (test, reference) in groups.items():
        axes.plot(test, reference, 'o', markersize=4, **_look(group))
    x, y = (np.concatenate(each) for each in zip(*groups.values(), strict=True))
    if np.ptp(x) > 0:
        slope, intercept = np.polyfit(x, y, 1)
        beta = calibrate(x, y)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, intercept + slope * ends, 'k--', linewidth=1, label='best fit')
        text = f'β = {beta.slope:.2f} ({beta.ci_low:.2f} to {beta.ci_high:.2f})'
        axes.plot(ends, beta.slope * ends, 'k-', linewidth=1, label=text)
    axes.set(xlabel=f'{name}, test', ylabel=f'{name}, reference')
    axes.legend(fontsize='small')


def draw_bland_altman(
    axes: Axes, groups: Mapping[str, tuple[np.ndarray, np.ndarray]], name: str
) -> None:
    """Draw test - reference over their mean, with bias and limits; parameters as above."""
    from bids_muscle.statistics.agreement import agreement

    for group, (test, reference) in groups.items():
        axes.plot((test + reference) / 2, test - reference, 'o', markersize=4, **_look(group))
    agreed = agreement(*(np.concatenate(each) for each in zip(*groups.values(), strict=True)))
    for level, colour in (
        (agreed.bias, 'black'),
        (agreed.loa_low, 'grey'),
        (agreed.loa_high, 'grey'),
    ):
        if isfinite(level):
            axes.axhline(level, color=colour, linestyle='--', linewidth=1)
    axes.axhline(0, color='lightgrey', linewidth=1, zorder=0)
    axes.set(xlabel=f'{name}, mean of both', ylabel='test - reference')


def dice_by_slice(slices: pd.DataFrame) -> Figure:
    """Draw the Dice of each muscle along the slices, a line per scan and side (Hess, Figure 4)."""
    from matplotlib.figure import Figure

    muscles = list(dict.fromkeys(slices.sort_values('index')['muscle']))
    figure = Figure(figsize=(8, 1.9 * len(muscles)), layout='constrained')
    panels = figure.subplots(len(muscles), squeeze=False, sharex=True)[:, 0]
    for axes, muscle in zip(panels, muscles, strict=True):
        part = slices[slices['muscle'] == muscle].sort_values('position')
        drawn = set()
        for (_, side), rows in part.groupby(['scan', 'side']):
            look = _look(side) | {'alpha': 0.4, 'linewidth': 1}
            look |= {'label': None if side in drawn else side}
            axes.plot(rows['position'], rows['dice'], '.-', markersize=3, **look)
            drawn.add(side)
        axes.set(title=muscle, ylim=(0, 1.02), ylabel='Dice')
        axes.grid(axis='y', alpha=0.3)
        axes.legend(fontsize='small')
    panels[-1].set_xlabel('slice: 0 lowest, 1 highest outlined')
    return figure


def measure_plots(
    groups: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], name: str
) -> Figure:
    """Draw test against reference, with x = y in grey, and Bland-Altman (Hess, Figures 5 and 6).

    Parameters
    ----------
    groups
        (n,) test and reference by panel, such as the muscle, and by colour, such as the side.
    name
        Measure, with its unit.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3 * len(groups)), layout='constrained')
    for (scatter, bland), (panel, pairs) in zip(
        figure.subplots(len(groups), 2, squeeze=False), groups.items(), strict=True
    ):
        for group, (test, reference) in pairs.items():
            scatter.plot(reference, test, 'o', markersize=4, **_look(group))
        scatter.axline((0, 0), slope=1, color='grey', linewidth=1)
        ends = np.concatenate([each for pair in pairs.values() for each in pair])
        margin = 0.05 * np.ptp(ends) + 1e-9
        limits = ends.min() - margin, ends.max() + margin
        scatter.set(title=panel, xlabel=f'{name}, reference', ylabel=f'{name}, test')
        scatter.set(xlim=limits, ylim=limits)
        scatter.legend(fontsize='small')
        draw_bland_altman(bland, pairs, name)
        bland.set_title(panel)
    return figure


def level_dice(table: pd.DataFrame) -> Figure:
    """Draw the Dice of vertebrae and discs by level, a dot per scan (Hess, Figure 4)."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(table['kind']))
    figure = Figure(figsize=(8, 2.6 * len(kinds)), layout='constrained')
    for axes, kind in zip(figure.subplots(len(kinds), squeeze=False)[:, 0], kinds, strict=True):
        part = table[table['kind'] == kind]
        names = list(dict.fromkeys(part['name']))
        axes.plot([names.index(name) for name in part['name']], part['dice'], 'o', alpha=0.5)
        means = part.groupby('name')['dice'].mean()
        for place, name in enumerate(names):
            axes.plot([place - 0.25, place + 0.25], [means[name]] * 2, color='black')
        axes.set_xticks(range(len(names)), names)
        axes.set(title=f'{kind}, by level', ylim=(0, 1.02), ylabel='Dice (bar: mean)')
        axes.grid(axis='y', alpha=0.3)
    return figure


def pairs_of(
    table: pd.DataFrame, panel: str, colour: str, test: str, reference: str
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Collect two columns for :func:`measure_plots`; rows without both are left out."""
    known = table.dropna(subset=[test, reference])
    return {
        str(name): {
            str(group): (rows[test].to_numpy(float), rows[reference].to_numpy(float))
            for group, rows in part.groupby(colour, sort=False)
        }
        for name, part in known.groupby(panel, sort=False)
    }


def _look(group: str) -> dict[str, Any]:
    return {'color': COLOURS.get(group), 'label': group, 'alpha': 0.7}
