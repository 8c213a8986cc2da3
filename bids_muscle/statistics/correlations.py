"""Partial correlations of each muscle with age, BMI and sex (Weber 2021, Xia 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    Analysis,
    counted,
    effects,
    interval_text,
    listed,
    tested_table,
    too_few,
    why_not_tested,
)
from bids_muscle.statistics.effect_size import correlation_interval
from bids_muscle.statistics.linear_model import SEX_CODE, is_collinear, unknown

if TYPE_CHECKING:
    import pandas as pd

_R = ('r', 'r_ci_low', 'r_ci_high')
COLUMNS = (
    'muscle', 'variable', 'controlled', 'n', 'n_excluded', *_R, 'df',
    'p', 'p_holm', 'reason',
)  # fmt: skip


def partial_correlations(
    values: pd.DataFrame,
    people: pd.DataFrame,
    variables: Sequence[str] = ('age', 'bmi'),
    *,
    control: Sequence[str] = ('sex', 'age', 'bmi'),
    method: Literal['pearson', 'spearman'] = 'pearson',
) -> Analysis:
    """Correlate each muscle with each variable, controlled for the others.

    Parameters
    ----------
    values
        One row per participant, one column per muscle.
    people
        Variables of the same participants.
    variables
        What is correlated.
    control
        What is controlled for, less the variable itself.
    method
        Spearman takes the ranks of everything (Xia 2019).

    Returns
    -------
    Analysis
        With Pearson its points are the residuals of variable and muscle after the others are
        taken out, as in Weber 2021, Figure 6.
    """
    rows, points = [], {}
    for variable in variables:
        known = _Known(people, variable, control)
        for muscle in values.columns:
            row, residuals = _correlation(values[muscle], known, variable, method)
            rows.append(row)
            if residuals is not None and method == 'pearson':
                points[str(muscle), variable] = residuals[:, ::-1]
    table = tested_table(rows, COLUMNS)
    parts = []
    for variable in variables:
        own = table[table['variable'] == variable]
        what = [
            f'{row["muscle"]} r = {interval_text(*(row[name] for name in _R))}'
            for row in effects(own).to_dict('records')
        ]
        reason = why_not_tested(own)
        found = f'not tested ({reason})' if reason else listed(what) if what else 'no muscle'
        parts.append(f'with {variable}: {found}')
    tested = table[table['p'].notna()]
    number = f' ({AFTER_HOLM}, {counted(tested["n"])})' if len(tested) else ''
    text = f'Partial {method.title()} correlation{number} '
    return Analysis(table, (f'{text}{"; ".join(parts)}.',), points)


class _Known:
    """What is known of people for the correlations with a variable, whatever the muscle."""

    def __init__(self, people: pd.DataFrame, variable: str, control: Sequence[str]) -> None:
        others = [name for name in control if name != variable]
        self.lacking = unknown(people, others)
        self.others = [name for name in others if name not in self.lacking]
        coded = people[[variable, *self.others]].copy()
        if 'sex' in coded:
            coded['sex'] = coded['sex'].map(SEX_CODE)
        self.numbers = coded.to_numpy(dtype=float)
        self.all_known = ~np.isnan(self.numbers).any(axis=1)
        self.no_variable = bool(unknown(people, [variable]))


def _correlation(
    y: pd.Series, people: _Known, variable: str, method: str
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return a row of the table, and the (n, 2) residuals of muscle and variable."""
    from scipy import stats

    others = people.others
    known = y.notna().to_numpy() & people.all_known
    data = np.column_stack([y[known], people.numbers[known]]).astype(float)
    n = len(data)
    row = {
        'muscle': y.name,
        'variable': variable,
        'controlled': ', '.join(others),
        'n': n,
        'n_excluded': int((~known).sum()),
    }
    if people.no_variable:
        return row | {'reason': f'no participant has {variable}'}, None
    if reason := too_few(n, 2 + len(others)):
        return row | {'reason': reason}, None
    if method == 'spearman':
        data = stats.rankdata(data, axis=0)
    for name, column in zip((str(y.name), variable), data.T, strict=False):
        if np.ptp(column) == 0:
            return row | {'reason': f'{name} is the same in all {n} participants'}, None
    constant = [
        name for name, column in zip(others, data.T[2:], strict=True) if not np.ptp(column)
    ]
    others = [name for name in others if name not in constant]
    data = data[:, [True, True, *(np.ptp(data[:, 2:], axis=0) > 0)]]
    row['controlled'] = ', '.join(others) or 'none'
    if is_collinear(data[:, 1:]):
        return row | {'reason': f'{variable} and {listed(others)} are collinear'}, None
    if is_collinear(data[:, [0, *range(2, data.shape[1])]]):
        return row | {'reason': f'the measure is a linear combination of {listed(others)}'}, None
    known_part = np.column_stack([np.ones(n), data[:, 2:]])
    residuals = data[:, :2] - known_part @ np.linalg.lstsq(known_part, data[:, :2])[0]
    r = float(np.clip(np.corrcoef(residuals.T)[0, 1], -1, 1))
    df = n - 2 - len(others)
    t = r * np.sqrt(df / (1 - r**2)) if abs(r) < 1 else np.inf
    low, high = correlation_interval(r, n, len(others))
    return {
        **row,
        'r': r,
        'r_ci_low': low,
        'r_ci_high': high,
        'df': df,
        'p': 2 * float(stats.t.sf(abs(t), df)),
        'reason': '; '.join(
            [
                *(f'{name} is the same in all participants' for name in constant),
                *(f'no participant has {name}' for name in people.lacking),
            ]
        )
        or None,
    }, residuals
