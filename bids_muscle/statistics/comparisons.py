"""Comparisons of muscles, and of women and men (Weber 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    ALL_MUSCLES,
    Analysis,
    counted,
    deciding_p,
    effects,
    interval_text,
    is_effect,
    listed,
    p_text,
    tested_table,
    too_few,
    why_not_tested,
)
from bids_muscle.statistics.effect_size import (
    CONFIDENCE,
    cohen_d_interval,
    holm,
    partial_eta_squared,
)
from bids_muscle.statistics.linear_model import (
    SEX_CODE,
    Design,
    complete,
    fit,
    make_design,
    no_variance,
)

if TYPE_CHECKING:
    import pandas as pd

_DIFFERENCE = ('difference', 'difference_ci_low', 'difference_ci_high')
PAIRED = (
    'n', 'n_excluded', *_DIFFERENCE, 't', 'df', 'p', 'p_holm',
    'cohen_dz', 'cohen_dz_ci_low', 'cohen_dz_ci_high', 'reason',
)  # fmt: skip
PAIR_COLUMNS = ('muscle', 'other_muscle', *PAIRED)
SEX_COLUMNS = (
    'muscle', 'controlled', 'n_female', 'n_male', 'n_excluded', 'emm_female', 'emm_female_se',
    'emm_male', 'emm_male_se', *_DIFFERENCE, 'difference_se', 'f', 'df1', 'df2', 'p', 'p_holm',
    'partial_eta_squared', 'partial_eta_squared_ci_low', 'partial_eta_squared_ci_high',
    'cohen_d', 'cohen_d_ci_low', 'cohen_d_ci_high', 'reason',
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
            'reason': [
                None if each > 1 else 'no standard deviation of a single value' for each in n
            ],
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
        {'muscle': one, 'other_muscle': other} | paired_test(values[one], values[other])
        for one, other in combinations(values.columns, 2)
    ]
    table = tested_table(rows, PAIR_COLUMNS)
    if not rows:
        return Analysis(table, ('Pairs of muscles were not tested: there is only one muscle.',))
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
    designs: dict[bytes, Design] = {}
    rows = [_sex_row(y, people, covariates, designs) for y in outcomes]
    table = tested_table(rows, SEX_COLUMNS)
    # The mean of all muscles is no further test of its own.
    table['p_holm'] = [nan, *holm(table['p'].to_numpy(dtype=float)[1:])]
    return Analysis(table, (_sex_sentence(table),))


def paired_test(one: pd.Series, other: pd.Series) -> dict[str, Any]:
    """Test one - other within participants; return the cells of :data:`PAIRED`."""
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


def _sex_row(
    y: pd.Series,
    people: pd.DataFrame,
    covariates: Sequence[str],
    designs: dict[bytes, Design],
) -> dict[str, Any]:
    """Return a row of the table; the design of the same people is made once."""
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
    of_whom = known.to_numpy().tobytes()
    if of_whom not in designs:
        designs[of_whom] = make_design(people, known.to_numpy(), terms)
    design = designs[of_whom]
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
