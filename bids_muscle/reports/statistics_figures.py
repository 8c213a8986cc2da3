"""How each analysis of a cohort is drawn: its question, its effects, its means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.reports.charts import Estimate
from bids_muscle.reports.page import format_value
from bids_muscle.statistics.analysis import AFTER_HOLM, deciding_p, is_effect, too_few

if TYPE_CHECKING:
    import pandas as pd

Cells = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """How an analysis is drawn.

    Parameters
    ----------
    title
        Question that the analysis answers.
    column
        Column of the effect size; its interval is in columns with ``_ci_low`` and ``_ci_high``.
    effect
        Name of the effect size; ``{measure}`` and ``{unit}`` are replaced by the measure and
        its unit.
    label
        Makes the name of a row from its cells.
    family
        Whether its tests ask one question of many muscles, so that Holm's p decides. The effects
        of the ANCOVA are questions of their own: sex is the test of all muscles in
        ``sex_differences``.
    """

    title: str
    column: str
    effect: str
    label: Callable[[Cells], str]
    family: bool = True


FIGURES = {
    'means': Figure(
        'What is the mean of each muscle?',
        'mean',
        '{measure}, mean',
        lambda row: row['muscle'],
    ),
    'site_differences': Figure(
        'Do sites differ?',
        'partial_eta_squared',
        'partial eta squared of site (share of variance, 0 to 1)',
        lambda row: row['muscle'],
    ),
    'harmonisation': Figure(
        'Which site effects were removed?',
        'shift',
        'shift of the mean{unit}',
        lambda row: f'{row["muscle"]}: {row["site"]}',
    ),
    'rm_ancova': Figure(
        'Do muscles differ, and by which factors?',
        'partial_eta_squared',
        'partial eta squared (share of variance, 0 to 1)',
        lambda row: row['effect'],
        family=False,
    ),
    'paired_t': Figure(
        'Which muscles differ?',
        'difference',
        'difference{unit}',
        lambda row: f'{row["muscle"]} minus {row["other_muscle"]}',
    ),
    'sex_differences': Figure(
        'Do women and men differ?',
        'difference',
        'women minus men{unit}',
        lambda row: row['muscle'],
    ),
    'pearson': Figure(
        'What correlates with age and body mass index? (linear)',
        'r',
        'partial correlation, Pearson (-1 to 1)',
        lambda row: f'{row["variable"]}: {row["muscle"]}',
    ),
    'spearman': Figure(
        'What correlates with sex, age and body mass index? (ranks)',
        'r',
        'partial correlation, Spearman (-1 to 1)',
        lambda row: f'{row["variable"]}: {row["muscle"]}',
    ),
    'agreement': Figure(
        'Do scans of the same people agree?',
        'icc',
        'ICC(2,1), absolute agreement (1 is perfect)',
        lambda row: f'{row["muscle"]}: {row["test"]}',
    ),
    'change': Figure(
        'What changed since the first session?',
        'difference',
        'later minus first{unit}',
        lambda row: f'{row["muscle"]}: {row["session"]}',
    ),
    'rate': Figure(
        'How fast does it change?',
        'difference',
        'change per year{unit}',
        lambda row: row['muscle'],
    ),
    'detectable': Figure(
        'Which change of one person is more than measurement error?',
        'sdc',
        'smallest detectable change{unit}',
        lambda row: row['muscle'],
    ),
    'individual_change': Figure(
        'Who changed by more than measurement error?',
        'difference',
        'later minus first{unit}',
        lambda row: row['muscle'],
    ),
    'mixed_model': Figure(
        'What changed, including participants with missing sessions? (mixed model)',
        'cohen_d',
        'Cohen d, in standard deviations of one value, per unit of the term',
        lambda row: f'{row["muscle"]}: {_term_text(row["term"])}',
    ),
    'formula': Figure(
        'Results of --formula',
        'partial_eta_squared',
        'partial eta squared (share of variance, 0 to 1)',
        lambda row: row['term'],
    ),
}


def estimates_of(figure: Figure, rows: Sequence[Cells]) -> list[Estimate]:
    """Return the effects that are known; what ComBat removes has no interval."""
    estimates = []
    for row in rows:
        value = row[figure.column]
        low, high = (row.get(f'{figure.column}_ci_{end}', value) for end in ('low', 'high'))
        if np.isfinite([value, low, high]).all() and row.get('term') != 'Intercept':
            mark = 'plain'
            if 'p_holm' in row:
                p = deciding_p(row) if figure.family else row['p']
                mark = 'certain' if is_effect(p) else 'open'
            interval = f' ({low:.2f} to {high:.2f})' if low < high else ''
            text = f'{value:.2f}{interval}, {n_text(row)}'
            estimates.append(Estimate(figure.label(row), value, low, high, mark, text))
    return estimates


def key_of(name: str, rows: Sequence[Cells]) -> str:
    """Return what lines and dots of the first chart of an analysis are."""
    if name == 'means':
        return 'Dots: means. Lines: ± 1 standard error. Nothing is tested.'
    if name == 'harmonisation':
        return 'Dots: estimated and removed effect; no interval, not tested.'
    if name in ('agreement', 'detectable'):
        return 'Lines: 95 % confidence intervals. Nothing is tested.'
    if not FIGURES[name].family:
        return (
            'Lines: 95 % confidence intervals. Filled dots: p < 0.05, not corrected for multiple '
            'tests.'
        )
    tests = sum(np.isfinite(row['p_holm']) for row in rows)
    alone = ', all muscles: p < 0.05 of one test' if name == 'sex_differences' else ''
    return (
        f'Lines: 95 % confidence intervals. Filled dots: {AFTER_HOLM} for {tests} '
        f'test{"s" if tests != 1 else ""}{alone}.'
    )


def n_text(row: Cells) -> str:
    """Return how many people a row is about."""
    if 'n_female' in row:
        return f'n = {row["n_female"]:.0f} F, {row["n_male"]:.0f} M'
    return f'n = {row["n"]:.0f}'


def _term_text(term: str) -> str:
    """Name a term of the mixed model with its unit.

    Examples
    --------
    >>> _term_text('age'), _term_text('session ses-post'), _term_text('pain')
    ('age (per year)', 'session ses-post minus first', 'pain (per unit)')
    """
    if term.startswith('session '):
        return f'{term} minus first'
    known = {'sex': 'women minus men', 'age': 'age (per year)', 'bmi': 'BMI (per kg/m²)'}
    return known.get(term, f'{term} (per unit)')


def mean_estimates(rows: Sequence[Cells]) -> list[Estimate]:
    """Return the mean of each muscle with its standard error (Weber 2021, Figure 5A)."""
    return [
        with_error(
            row['muscle'], row['mean'], 0.0 if too_few(row['n']) else row['se'], 'plain', row
        )
        for row in rows
        if np.isfinite(row['mean'])
    ]


def marginal_means(rows: Sequence[Cells]) -> list[Estimate]:
    """Return the estimated marginal means of women and men (Weber 2021, Figure 5B)."""
    found = []
    for row in rows:
        if np.isfinite(row['emm_female']):
            stars = '*' * sum(deciding_p(row) < limit for limit in (0.05, 0.01, 0.001))
            for name, mark in (('female', 'women'), ('male', 'men')):
                label = f'{row["muscle"]}: {mark} {stars}'.strip()
                mean, error = row[f'emm_{name}'], row[f'emm_{name}_se']
                found.append(with_error(label, mean, error, mark, {'n': row[f'n_{name}']}))
    return found


def with_error(label: str, mean: float, error: float, mark: str, row: Cells) -> Estimate:
    """Return a mean with its standard error."""
    spread = f' ± {format_value(error)}' if error else ''
    text = f'{format_value(mean)}{spread}, {n_text(row)}'
    return Estimate(label, mean, mean - error, mean + error, mark, text)


def unit_of(measure: str) -> str:
    """Return the unit that the name of a measure ends in.

    Examples
    --------
    >>> unit_of('volume_ml'), unit_of('mfi_ratio_of_means_pct')
    ('ml', 'points')
    """
    return {'pct': 'points', 'ml': 'ml', 'cm2': 'cm²', 'mm': 'mm'}.get(
        measure.rpartition('_')[2], ''
    )


def rows_of(table: pd.DataFrame, place: tuple[str, str, str]) -> pd.DataFrame:
    """Return the rows of a region, contrast and, but for a model of the user, measure."""
    keys = [key for key in ('region', 'contrast', 'measure') if key in table]
    return table[(table[keys] == list(place[: len(keys)])).all(axis=1)]
