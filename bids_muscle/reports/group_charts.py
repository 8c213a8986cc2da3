"""Charts and sentences of the groups and numbers of participants.tsv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bids_muscle.dataset.names import dataset_path
from bids_muscle.reports.charts import Estimate, Panel, forest_chart, panel_grid
from bids_muscle.reports.statistics_figures import Cells, n_text, rows_of, with_error
from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    ALL_MUSCLES,
    Points,
    deciding_p,
    is_effect,
    p_text,
)
from bids_muscle.statistics.cohort import CohortAnalysis

Place = tuple[str, str, str]
_LINES = 'Lines: 95 % confidence intervals.'


def sentence_by_variable(
    analyses: Mapping[str, CohortAnalysis], name: str, place: Place
) -> dict[str, str]:
    """Return the sentence of each column in one region, contrast and measure.

    Parameters
    ----------
    analyses
        From :func:`~bids_muscle.statistics.cohort.analyse`.
    name
        ``'groups'`` or ``'group_pairs'``.
    place
        Region, contrast, measure.
    """
    if name not in analyses:
        return {}
    sentences = [
        each.sentence
        for each in analyses[name].findings
        if (each.region, each.contrast, each.measure) == place
    ]
    variables = dict.fromkeys(rows_of(analyses[name].table, place)['variable'])
    return dict(zip(variables, sentences, strict=True))


def group_blocks(
    analyses: Mapping[str, CohortAnalysis], place: Place, measure: str, unit: str
) -> Iterator[dict[str, Any]]:
    """Give title, sentences, charts and file of each column that was tested.

    Parameters
    ----------
    analyses, place
        See :func:`sentence_by_variable`.
    measure, unit
        Name of the measure with its unit, and the unit in brackets.
    """
    pair_sentences = sentence_by_variable(analyses, 'group_pairs', place)
    rows, pairs, means = (
        rows_of(analyses[name].table, place).to_dict('records') if name in analyses else []
        for name in ('groups', 'group_pairs', 'group_means')
    )
    points = analyses['groups'].points.get(place, {}) if 'groups' in analyses else {}
    for variable, sentence in sentence_by_variable(analyses, 'groups', place).items():
        own, own_pairs, own_means = (
            [row for row in each if row['variable'] == variable] for each in (rows, pairs, means)
        )
        charts = [
            _effects(own, variable, measure, unit),
            _means(own_means, variable, measure),
            _pairs(own_pairs, variable, measure, unit),
        ]
        number = own[0]['kind'] == 'number'
        yield {
            'title': f'What goes with {variable}?' if number else f'Do groups differ? {variable}',
            'sentences': [sentence, *([pair_sentences[variable]] if own_pairs else [])],
            'charts': [forest_chart(*chart) for chart in charts if chart[0]],
            'panels': _panels(own, points, variable, measure) if number else [],
            'file': str(dataset_path('group_stats', analysis='groups')),
        }


def _effects(
    rows: Sequence[Cells], variable: str, measure: str, unit: str
) -> tuple[list[Estimate], str, str]:
    """Return the estimate of each muscle; of three or more groups the effect size."""
    first = next((row for row in rows if np.isfinite(row['f'])), None)
    name = 'estimate' if first and np.isfinite(first['estimate']) else 'partial_eta_squared'
    if first is None or name != 'estimate':
        effect = f'partial eta squared of {variable} (share of variance, 0 to 1)'
    elif first['kind'] == 'number':
        effect = f'change with one unit of {variable}{unit}'
    else:
        effect = f'{first["level"]} minus {first["other_level"]}{unit}'
    key = f'{_LINES} Filled dots: {AFTER_HOLM}, all muscles: p < 0.05 of one test.'
    return (
        [_estimate(row['muscle'], row, name) for row in rows if np.isfinite(row[name])],
        (f'{measure}: {effect}'),
        key,
    )


def _pairs(
    rows: Sequence[Cells], variable: str, measure: str, unit: str
) -> tuple[list[Estimate], str, str]:
    """Return the pairs of groups: of all muscles, and of single ones those that differ."""
    shown = [row for row in rows if row['muscle'] == ALL_MUSCLES or is_effect(deciding_p(row))]
    estimates = [
        _estimate(f'{row["muscle"]}: {row["level"]} minus {row["other_level"]}', row, 'difference')
        for row in shown
    ]
    key = (
        f'{_LINES} Filled dots: {AFTER_HOLM}, all muscles: p < 0.05 of one test. Of single '
        'muscles only the pairs that differ are drawn; all are in the table.'
    )
    return estimates, f'{measure}: pairs of {variable}{unit}', key


def _estimate(label: str, row: Cells, name: str) -> Estimate:
    value, low, high = (row[f'{name}{end}'] for end in ('', '_ci_low', '_ci_high'))
    mark = 'certain' if is_effect(deciding_p(row)) else 'open'
    counts = (
        f'n = {row["n_level"]:.0f}, {row["n_other_level"]:.0f}'
        if isinstance(row.get('level'), str)
        else n_text(row)
    )
    return Estimate(
        label, value, low, high, mark, f'{value:.2f} ({low:.2f} to {high:.2f}), {counts}'
    )


def _means(rows: Sequence[Cells], variable: str, measure: str) -> tuple[list[Estimate], str, str]:
    """Return the estimated marginal mean of each group."""
    levels = list(dict.fromkeys(row['level'] for row in rows))
    estimates = [
        with_error(
            f'{row["muscle"]}: {row["level"]}',
            row['emm'],
            row['emm_se'],
            f'level-{levels.index(row["level"])}',
            row,
        )
        for row in rows
    ]
    controlled = rows[0]['controlled'] if rows else ''
    key = f'Lines: ± 1 standard error. At the means of: {controlled}.'
    return estimates, f'{measure}, estimated means by {variable}', key


def _panels(
    rows: Sequence[Cells], points: Points, variable: str, measure: str
) -> list[dict[str, Any]]:
    """Draw what is left of each muscle on what is left of a number."""
    panels = []
    for row in rows:
        values = points.get((row['muscle'], variable))
        if values is None:
            continue
        low, high = float(values[:, 0].min()), float(values[:, 0].max())
        slope = row['estimate']
        line = ('regression', (low, slope * low), (high, slope * high))
        text = f'{slope:.2g} a unit, {p_text(deciding_p(row))}, {n_text(row)}'
        panels.append(Panel(row['muscle'], text, values, (line,)))
    if not panels:  # numbers that nobody asked for have no points
        return []
    title = f'{measure} and {variable}, what is left of both after the covariates'
    return [panel_grid(panels, f'{title}; p after Holm correction', variable, measure)]
