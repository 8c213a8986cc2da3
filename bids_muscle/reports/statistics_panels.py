"""Scatter plots of the analyses of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bids_muscle.reports.charts import Panel, panel_grid
from bids_muscle.reports.statistics_figures import Cells, n_text
from bids_muscle.statistics.analysis import Points, p_text, too_few


def residual_panels(rows: Sequence[Cells], points: Points, measure: str) -> list[dict[str, Any]]:
    """Draw what is left of each muscle on what is left of a variable (Weber 2021, Figure 6)."""
    grids = []
    for variable in dict.fromkeys(row['variable'] for row in rows):
        panels = []
        for row in rows:
            values = points.get((row['muscle'], variable))
            if row['variable'] == variable and values is not None and np.isfinite(row['r']):
                slope = row['r'] * values[:, 1].std() / values[:, 0].std()
                low, high = float(values[:, 0].min()), float(values[:, 0].max())
                line = ('regression', (low, slope * low), (high, slope * high))
                text = f'r = {row["r"]:.2f}, {p_text(row["p_holm"])}, {n_text(row)}'
                panels.append(Panel(row['muscle'], text, values, (line,)))
        if panels:
            title = (
                f'{measure} and {variable}, residuals of both after regression on the other '
                'covariates; p after Holm correction'
            )
            grids.append(panel_grid(panels, title, variable, measure))
    return grids


def agreement_panels(rows: Sequence[Cells], points: Points, measure: str) -> list[dict[str, Any]]:
    """Draw correlation and Bland-Altman plots as Weber 2021, Figures 3 and 4."""
    grids = []
    for test, reference in dict.fromkeys((row['test'], row['reference']) for row in rows):
        scatter, difference = [], []
        for row in rows:
            values = points.get((row['muscle'], test), np.empty((0, 2)))
            if row['test'] != test or too_few(len(values)):
                continue
            test_values, reference_values = values.T
            low, high = float(values.min()), float(values.max())
            scatter.append(
                Panel(
                    row['muscle'],
                    f'ICC {row["icc"]:.2f}, r {row["pearson_r"]:.2f}, {n_text(row)}',
                    values[:, ::-1],
                    (('identity', (low, low), (high, high)),),
                )
            )
            means = (test_values + reference_values) / 2
            ends = float(means.min()), float(means.max())
            levels = (('bias', row['bias']), ('limit', row['loa_low']), ('limit', row['loa_high']))
            difference.append(
                Panel(
                    row['muscle'],
                    f'bias {row["bias"]:.2f}, {n_text(row)}',
                    np.column_stack([means, test_values - reference_values]),
                    tuple((style, (ends[0], y), (ends[1], y)) for style, y in levels),
                )
            )
        if scatter:
            named = f'{measure}, {test} and {reference}'
            grids.append(panel_grid(scatter, named, reference, test, square=True))
            title = f'{named}: Bland-Altman, bias and 95 % limits of agreement'
            grids.append(panel_grid(difference, title, 'mean of both', f'{test} - {reference}'))
    return grids


def change_panels(rows: Sequence[Cells], points: Points, measure: str) -> list[dict[str, Any]]:
    """Draw the change of each person on the first value, with the smallest detectable change."""
    limits = {row['muscle']: row['sdc'] for row in rows}
    grids = []
    for session in dict.fromkeys(session for _, session in points):
        panels = []
        for (muscle, of_session), values in points.items():
            if of_session != session or not len(values):
                continue
            sdc = limits[muscle]
            ends = float(values[:, 0].min()), float(values[:, 0].max())
            levels = (('limit', sdc), ('limit', -sdc), ('bias', 0.0))
            lines = tuple((style, (ends[0], y), (ends[1], y)) for style, y in levels)
            beyond = int((abs(values[:, 1]) > sdc).sum())
            panels.append(Panel(muscle, f'{beyond} of {len(values)} beyond', values, lines))
        if panels:
            title = f'{measure}, change to {session}; dashed: smallest detectable change'
            grids.append(panel_grid(panels, title, 'first value', 'change'))
    return grids
