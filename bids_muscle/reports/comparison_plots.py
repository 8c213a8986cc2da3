"""Figures of a comparison of models: means with tests (Wesselink 2022, Figure 1), normality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Greatest p for each sign of Wesselink 2022, Figure 1.
SIGNS = ((0.001, '**'), (0.05, '*'))


def sign_of(p: float) -> str:
    """Return the sign of a p; nothing where there is no difference, or no test.

    Examples
    --------
    >>> sign_of(0.0005), sign_of(0.02), sign_of(0.2), sign_of(float('nan'))
    ('**', '*', '', '')
    """
    return next((sign for most, sign in SIGNS if p <= most), '')


def mean_bars(
    table: pd.DataFrame, models: Sequence[str], tests: pd.DataFrame, best: str
) -> Figure:
    """Draw mean and SD of the Dice of each label by each model, with the tests of the best.

    Parameters
    ----------
    table
        Rows with ``model``, ``label``, ``index``, ``participant_id`` and ``dice``; several of a
        person are averaged.
    models
        In the order of the bars.
    tests
        Paired tests of `best` against the others: ``within``, ``level``, ``other_level``, ``p``.
    best
        The model that the others are compared with.
    """
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(table.sort_values('index')['label']))
    figure = Figure(figsize=(max(6, 1.2 * len(labels)), 4.5), layout='constrained')
    axes = figure.subplots()
    width = 0.8 / len(models)
    people = table.groupby(['model', 'label', 'participant_id'])['dice'].mean()
    by_cell = people.groupby(level=['model', 'label'])
    mean, sd = by_cell.mean(), by_cell.std(ddof=1).fillna(0)
    for place, model in enumerate(models):
        at = np.arange(len(labels)) + (place - (len(models) - 1) / 2) * width
        heights = np.array([mean.get((model, label), np.nan) for label in labels])
        spread = np.array([sd.get((model, label), 0) for label in labels])
        axes.bar(at, heights, width, yerr=spread, capsize=2, label=model, alpha=0.8)
        other = tests[(tests['level'] == model) | (tests['other_level'] == model)]
        p = other.set_index('within')['p'] if model != best else {}
        for x, top, label in zip(at, heights + spread, labels, strict=True):
            if sign := sign_of(p.get(label, np.nan)):
                axes.annotate(sign, (x, top), ha='center', va='bottom')
    low = float(np.nanmin(mean - sd)) if len(mean) else 0
    axes.set(ylim=(max(0, np.floor(10 * low) / 10), 1.05), ylabel='Dice (mean, SD)')
    axes.set_xticks(range(len(labels)), [label.replace(' ', '\n') for label in labels])
    figure.legend(fontsize='small', loc='outside upper center', ncols=len(models))
    return figure


def normal_quantiles(table: pd.DataFrame, models: Sequence[str], best: str) -> Figure:
    """Draw the standardised differences of the best model to each other against the normal's.

    Differences of all labels are in one panel, each standardised within its label; as in the
    tests, a person with several scans is one point of a label.
    """
    from matplotlib.figure import Figure
    from scipy import stats

    others = [model for model in models if model != best]
    figure = Figure(figsize=(3.2 * len(others), 3.2), layout='constrained')
    wide = table.pivot_table(index=['label', 'participant_id'], columns='model', values='dice')
    for axes, model in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        groups = (wide[best] - wide[model]).dropna().groupby(level='label')
        scaled = ((groups.transform(lambda x: x - x.mean())) / groups.transform('std')).dropna()
        points = np.sort(scaled[np.isfinite(scaled)].to_numpy())
        expected = stats.norm.ppf((np.arange(len(points)) + 0.5) / max(len(points), 1))
        axes.plot(expected, points, '.', markersize=4)
        axes.axline((0, 0), slope=1, color='grey', linewidth=1)
        axes.set(title=model, xlabel='normal quantile', ylabel='standardised difference')
    return figure
