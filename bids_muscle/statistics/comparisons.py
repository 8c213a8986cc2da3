"""Comparisons of muscles, sexes and sessions, and correlations with age and BMI (Weber 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import nan, sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    Analysis,
    counted,
    deciding_p,
    effects,
    interval_text,
    is_effect,
    listed,
    p_text,
    too_few,
    why_not_tested,
)
from bids_muscle.statistics.effect_size import (
    CONFIDENCE,
    cohen_d_interval,
    correlation_interval,
    holm,
    partial_eta_squared,
)
from bids_muscle.statistics.linear_model import (
    SEX_CODE,
    complete,
    fit,
    is_collinear,
    make_design,
    no_variance,
    unknown,
)
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

#: Row of the mean over all muscles.
ALL_MUSCLES = 'all muscles'

_R = ('r', 'r_ci_low', 'r_ci_high')
_DIFFERENCE = ('difference', 'difference_ci_low', 'difference_ci_high')
_PAIRED = (
    'n', 'n_excluded', *_DIFFERENCE, 't', 'df', 'p', 'p_holm',
    'cohen_dz', 'cohen_dz_ci_low', 'cohen_dz_ci_high', 'reason',
)  # fmt: skip
PAIR_COLUMNS = ('muscle', 'other_muscle', *_PAIRED)
CHANGE_COLUMNS = ('muscle', 'session', 'first_session', 'session_order', *_PAIRED)
SEX_COLUMNS = (
    'muscle', 'controlled', 'n_female', 'n_male', 'n_excluded', 'emm_female', 'emm_female_se',
    'emm_male', 'emm_male_se', *_DIFFERENCE, 'difference_se', 'f', 'df1', 'df2', 'p', 'p_holm',
    'partial_eta_squared', 'partial_eta_squared_ci_low', 'partial_eta_squared_ci_high',
    'cohen_d', 'cohen_d_ci_low', 'cohen_d_ci_high', 'reason',
)  # fmt: skip
CORRELATION_COLUMNS = (
    'muscle', 'variable', 'controlled', 'n', 'n_excluded', *_R, 'df',
    'p', 'p_holm', 'reason',
)  # fmt: skip


def muscle_summary(values: pd.DataFrame, which: str = '') -> Analysis:
    """Describe each muscle: number, mean, standard deviation and standard error.

    Parameters
    ----------
    values
        One row per participant, one column per muscle.
    which
        Which values these are, for the sentence.
    """
    import pandas as pd

    n = values.count().to_numpy()
    table = pd.DataFrame(
        {
            'muscle': values.columns,
            'n': n,
            'n_excluded': len(values) - n,
            'mean': values.mean().to_numpy(),
            'sd': values.std(ddof=1).to_numpy(),
            'se': values.sem(ddof=1).to_numpy(),
            'reason': [None if each > 1 else 'one value has no deviation' for each in n],
        }
    )
    said = [
        f'{row["muscle"]} {row["mean"]:.2f}' + (f' ({row["sd"]:.2f})' if row['n'] > 1 else '')
        for row in table.to_dict('records')
    ]
    return Analysis(table, (f'Mean (SD){which}, {counted(table["n"])}: {"; ".join(said)}.',))


def paired_t(values: pd.DataFrame) -> Analysis:
    """Compare all pairs of muscles within participants.

    Parameters
    ----------
    values
        One row per participant, one column per muscle.
    """
    rows = [
        {'muscle': one, 'other_muscle': other} | _paired(values[one], values[other])
        for one, other in combinations(values.columns, 2)
    ]
    table = _table(rows, PAIR_COLUMNS)
    if not rows:
        return Analysis(table, ('There is one muscle only, so no pair.',))
    if reason := why_not_tested(table):
        return Analysis(table, (f'Pairs of muscles were not tested: {reason}.',))
    tested, differ = table[table['p'].notna()], effects(table)
    sentence = (
        f'{len(differ)} of {len(tested)} pairs of muscles differ (paired t, {AFTER_HOLM}, '
        f'{counted(tested["n"])})'
    )
    if len(differ):
        row = differ.loc[differ['difference'].abs().idxmax()]
        largest = interval_text(*row[list(_DIFFERENCE)])
        sentence += (
            f'; the largest difference is {row["muscle"]} minus {row["other_muscle"]}, {largest}, '
            f'Cohen dz {row["cohen_dz"]:.2f}'
        )
    return Analysis(table, (f'{sentence}.',))


def change(sessions: Mapping[str, pd.DataFrame], order: SessionOrder) -> Analysis:
    """Compare each later session with the first, within participants.

    Parameters
    ----------
    sessions
        Session -> one row per participant, one column per muscle, in the order of time.
    order
        That order, and what says so.
    """
    first, *later = sessions
    rows = []
    for session in later:
        now, before = sessions[session].align(sessions[first], join='inner')
        rows += [
            {'muscle': muscle, 'session': session, 'first_session': first}
            | {'session_order': order.text}
            | _paired(now[muscle], before[muscle])
            for muscle in now.columns
        ]
    table = _table(rows, CHANGE_COLUMNS)
    if not rows:
        return Analysis(table, ('There is one session only, so no change.',))
    said = (_change_sentence(table[table['session'] == each], first, each) for each in later)
    return Analysis(table, tuple(f'{text}; order by {order.source}).' for text in said))


def _change_sentence(table: pd.DataFrame, first: str, later: str) -> str:
    """Tell the change of one session, with an open bracket."""
    text = f'From {first} to {later} the measure'
    if reason := why_not_tested(table):
        return f'{text} was not tested ({reason}'
    what = [
        f'{row["muscle"]} by {interval_text(*(row[name] for name in _DIFFERENCE))}'
        for row in effects(table).to_dict('records')
    ]
    found = f'changed ({AFTER_HOLM}) in {listed(what)}' if what else 'was not found to change'
    return f'{text} {found} ({counted(table[table["p"].notna()]["n"])}'


def sex_differences(
    values: pd.DataFrame, people: pd.DataFrame, covariates: Sequence[str] = ('age', 'bmi')
) -> Analysis:
    """Compare women and men in each muscle by one-way ANCOVA, and in the mean of all muscles.

    Parameters
    ----------
    values
        One row per participant, one column per muscle.
    people
        ``sex`` (``'F'``, ``'M'``) and covariates of the same participants.
    covariates
        Columns of `people`.

    Returns
    -------
    Analysis
        With estimated marginal means at the means of the covariates. The row of all muscles is
        the between-subject effect of sex in the repeated-measures ANCOVA.
    """
    mean = values.mean(axis=1, skipna=False).rename(ALL_MUSCLES)
    outcomes = [mean, *(values[muscle] for muscle in values.columns)]
    table = _table([_sex_row(y, people, covariates) for y in outcomes], SEX_COLUMNS)
    # The mean of all muscles is no further test of its own.
    table['p_holm'] = [nan, *holm(table['p'].to_numpy(dtype=float)[1:])]
    return Analysis(table, (_sex_sentence(table),))


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
        for muscle in values.columns:
            row, residuals = _correlation(values[muscle], people, variable, control, method)
            rows.append(row)
            if residuals is not None and method == 'pearson':
                points[str(muscle), variable] = residuals[:, ::-1]
    table = _table(rows, CORRELATION_COLUMNS)
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


def _paired(one: pd.Series, other: pd.Series) -> dict[str, Any]:
    """Test one - other."""
    from scipy import stats

    difference = (one - other).to_numpy(dtype=float)
    known = difference[np.isfinite(difference)]
    n = known.size
    row: dict[str, Any] = {'n': n, 'n_excluded': difference.size - n}
    if reason := too_few(n):
        return row | {'reason': reason}
    mean, error = float(known.mean()), float(known.std(ddof=1)) / sqrt(n)
    row['difference'] = mean
    if no_variance(error**2 * n * (n - 1), np.array([one.abs().max(), other.abs().max()])):
        return row | {'reason': 'the difference is the same in all participants'}
    t, df = mean / error, n - 1
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * error
    d_low, d_high = cohen_d_interval(t, df, 1 / sqrt(n))
    return row | {
        'difference_ci_low': mean - half,
        'difference_ci_high': mean + half,
        't': t,
        'df': df,
        'p': 2 * float(stats.t.sf(abs(t), df)),
        'cohen_dz': t / sqrt(n),
        'cohen_dz_ci_low': d_low,
        'cohen_dz_ci_high': d_high,
    }


def _sex_row(y: pd.Series, people: pd.DataFrame, covariates: Sequence[str]) -> dict[str, Any]:
    from scipy import stats

    terms = ['sex', *covariates]
    known = y.notna() & complete(people, terms)
    who, outcome = people[known], y[known].to_numpy(dtype=float)[:, None]
    row: dict[str, Any] = {
        'muscle': y.name,
        'controlled': ', '.join(covariates),
        'n_female': int((who['sex'] == 'F').sum()),
        'n_male': int((who['sex'] == 'M').sum()),
        'n_excluded': int((~known).sum()),
    }
    design = make_design(people, known.to_numpy(), terms)
    reason = design.left_out.get('sex') or design.reason
    if reason:
        return row | {'reason': reason}
    model = fit(design, outcome)
    if no_variance(float(model.residual[0, 0]), outcome):
        return row | {'reason': 'no variance is left between participants'}
    sd = sqrt(float(model.residual[0, 0]) / model.df)
    means = {}
    for sex, name in (('F', 'female'), ('M', 'male')):
        at = np.zeros(len(design.terms))
        at[[0, 1]] = 1, SEX_CODE[sex]
        means[f'emm_{name}'] = float(at @ model.coefficients[:, 0])
        means[f'emm_{name}_se'] = sd * sqrt(at @ model.scale @ at)
    difference, spread = float(model.coefficients[1, 0]), sqrt(model.scale[1, 1])
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, model.df)) * sd * spread
    t = difference / (sd * spread)
    eta, eta_low, eta_high = partial_eta_squared(t**2, 1, model.df)
    d_low, d_high = cohen_d_interval(t, model.df, spread)
    return row | {
        **means,
        'controlled': ', '.join(design.terms[2:]) or 'none',
        'difference': difference,
        'difference_ci_low': difference - half,
        'difference_ci_high': difference + half,
        'difference_se': sd * spread,
        'f': t**2,
        'df1': 1,
        'df2': model.df,
        'p': 2 * float(stats.t.sf(abs(t), model.df)),
        'partial_eta_squared': eta,
        'partial_eta_squared_ci_low': eta_low,
        'partial_eta_squared_ci_high': eta_high,
        'cohen_d': difference / sd,
        'cohen_d_ci_low': d_low,
        'cohen_d_ci_high': d_high,
        'reason': '; '.join(
            f'{why}, so {term} is not controlled for' for term, why in design.left_out.items()
        )
        or None,
    }


def _sex_sentence(table: pd.DataFrame) -> str:
    overall, *muscles = table.to_dict('records')
    if np.isnan(overall['p']):
        return f'Women and men were not compared: {overall["reason"]}.'
    differ = [row['muscle'] for row in muscles if is_effect(deciding_p(row))]
    difference = interval_text(*(overall[name] for name in _DIFFERENCE))
    return (
        f'Averaged over all muscles and controlled for {overall["controlled"]}, '
        f'{overall["n_female"]} women minus {overall["n_male"]} men is {difference}, '
        f'{p_text(overall["p"])}, Cohen d {overall["cohen_d"]:.2f}; single muscles with '
        f'{AFTER_HOLM}: {listed(differ) if differ else "none"}.'
    )


def _correlation(
    y: pd.Series,
    people: pd.DataFrame,
    variable: str,
    control: Sequence[str],
    method: str,
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return a row of the table, and the (n, 2) residuals of muscle and variable."""
    from scipy import stats

    others = [name for name in control if name != variable]
    lacking = unknown(people, others)
    others = [name for name in others if name not in lacking]
    coded = people[[variable, *others]].copy()
    if 'sex' in coded:
        coded['sex'] = coded['sex'].map(SEX_CODE)
    known = y.notna() & coded.notna().all(axis=1)
    data = np.column_stack([y[known], coded[known]]).astype(float)
    n = len(data)
    row = {
        'muscle': y.name,
        'variable': variable,
        'controlled': ', '.join(others),
        'n': n,
        'n_excluded': int((~known).sum()),
    }
    if unknown(people, [variable]):
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
        return row | {'reason': f'{variable} and {listed(others)} determine each other'}, None
    if is_collinear(data[:, [0, *range(2, data.shape[1])]]):
        return row | {'reason': f'{listed(others)} determine the measure'}, None
    known_part = np.column_stack([np.ones(n), data[:, 2:]])
    residuals = data[:, :2] - known_part @ np.linalg.lstsq(known_part, data[:, :2])[0]
    r = float(np.clip(np.corrcoef(residuals.T)[0, 1], -1, 1))
    df = n - 2 - len(others)
    t = r * sqrt(df / (1 - r**2)) if abs(r) < 1 else np.inf
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
                *(f'no participant has {name}' for name in lacking),
            ]
        )
        or None,
    }, residuals


def _table(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(columns))
    table['p_holm'] = holm(table['p'].to_numpy(dtype=float))
    return table
