"""Comparison of models on the same scans: repeated-measures ANOVA of factors (Wesselink 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.analysis import (
    Analysis,
    counted,
    interval_text,
    is_effect,
    p_text,
    tested_table,
)
from bids_muscle.statistics.comparisons import PAIRED, paired_t
from bids_muscle.statistics.effect_size import holm, partial_eta_squared
from bids_muscle.statistics.linear_model import no_variance
from bids_muscle.statistics.repeated_measures import sphericity

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    'effect', 'n', 'n_excluded', 'f', 'df1', 'df2', 'p', 'p_holm', 'p_sphericity_assumed',
    'p_huynh_feldt', 'epsilon_greenhouse_geisser', 'epsilon_huynh_feldt', 'mauchly_w',
    'mauchly_p', 'partial_eta_squared', 'partial_eta_squared_ci_low',
    'partial_eta_squared_ci_high', 'reason',
)  # fmt: skip
_NORMALITY = ('shapiro_w', 'shapiro_p', 'skewness', 'kurtosis')
COMPARED = ('within', 'level', 'other_level', *PAIRED[:-1], *_NORMALITY, 'reason')


def factorial_anova(
    table: pd.DataFrame, value: str, factors: Sequence[str], subject: str = 'participant_id'
) -> Analysis:
    """Test within-subject factors, such as model and muscle, and all their interactions.

    Parameters
    ----------
    table
        One row per subject and combination of levels; several are averaged.
    value
        Column of the outcome, such as ``'dice'``.
    factors
        Columns of the factors; a subject who lacks a combination is left out.
    subject
        Column that says what is measured repeatedly.

    Returns
    -------
    Analysis
        A row per effect, ``'model'``, ``'muscle'``, ``'model x muscle'``, with degrees of freedom
        and p corrected by the Greenhouse-Geisser epsilon.

    Notes
    -----
    An effect is the mean of orthonormal contrasts: Kronecker products of Helmert contrasts for
    the factors in it and of means for the others.
    """
    import pandas as pd
    from scipy.linalg import helmert

    wide = table.groupby([subject, *factors])[value].mean().unstack(list(factors))
    levels = {name: sorted(table[name].dropna().unique()) for name in factors}
    cells = pd.MultiIndex.from_product([levels[name] for name in factors], names=list(factors))
    wide = wide.reindex(columns=cells if len(factors) > 1 else cells.get_level_values(0))
    y = wide.dropna().to_numpy(dtype=float)
    shared = {'n': len(y), 'n_excluded': len(wide) - len(y)}
    rows = []
    for size in range(1, len(factors) + 1):
        for effect in combinations(factors, size):
            contrast = np.ones((1, 1))
            for name in factors:
                k = len(levels[name])
                part = helmert(k) if name in effect else np.full((1, k), k**-0.5)
                contrast = np.kron(contrast, part)
            row = {'effect': ' x '.join(effect), **shared}
            rows.append(row | _effect_cells(y, contrast))
    result = tested_table(rows, COLUMNS)
    return Analysis(result, (_sentence(result, value),))


def compare_levels(
    table: pd.DataFrame,
    value: str,
    factor: str,
    by: str | None = None,
    subject: str = 'participant_id',
) -> Analysis:
    """Compare the levels of one factor, such as models, by paired t, overall and within another.

    Parameters
    ----------
    table, value, subject
        As in :func:`factorial_anova`.
    factor
        Column whose levels are compared in pairs.
    by
        Column, such as ``'muscle'``, within each level of which they are compared too.

    Returns
    -------
    Analysis
        Columns ``within`` (a level of `by`, or ``'all'``), ``level``, ``other_level``, those of
        :func:`~bids_muscle.statistics.comparisons.paired_t`, and how normal the differences are
        (Wesselink 2022); Holm's correction is over all rows within levels, and over the overall
        rows apart.
    """
    import pandas as pd

    names = {'muscle': 'level', 'other_muscle': 'other_level'}
    parts = []
    # All levels of `by` count alike, and a subject who lacks one is missing.
    cells = table.groupby([subject, factor, *([by] if by else [])])[value].mean()
    overall = cells.unstack(by).mean(axis=1, skipna=False) if by else cells
    groups = [('all', overall), *((str(at), cells.xs(at, level=by)) for at in _levels(table, by))]
    for at, each in groups:
        wide = each.unstack(factor)
        found = paired_t(wide).table.rename(columns=names)
        pairs = zip(found['level'], found['other_level'], strict=True)
        normal = [normality(wide[one] - wide[other]) for one, other in pairs]
        found = found.join(pd.DataFrame(normal, columns=list(_NORMALITY), index=found.index))
        parts.append(found.assign(within=at)[list(COMPARED)])
    result = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    inner = (result['within'] != 'all').to_numpy()
    p = result['p'].to_numpy(dtype=float)
    for rows in (inner, ~inner):
        result.loc[rows, 'p_holm'] = holm(p[rows])
    best = [
        f'{row["level"]} minus {row["other_level"]} '
        f'{row["difference"]:.3f} (95 % CI {row["difference_ci_low"]:.3f} to '
        f'{row["difference_ci_high"]:.3f})'
        f', {p_text(row["p_holm"])} after Holm correction'
        for row in result[~inner & np.isfinite(p)].to_dict('records')
    ]
    counts = result.loc[~inner, 'n'].tolist()
    text = '; '.join(best) or f'Levels of {factor} could not be compared'
    return Analysis(result, (f'{text}, {counted(counts)}.',))


def normality(differences: pd.Series) -> dict[str, float]:
    """Test the normality that a paired t assumes: Shapiro-Wilk, skewness, excess kurtosis.

    Examples
    --------
    >>> import pandas as pd
    >>> found = normality(pd.Series([-2.0, -1, 0, 1, 2, None]))
    >>> round(found['shapiro_w'], 3), found['skewness'], round(found['kurtosis'], 3)
    (0.987, 0.0, -1.2)
    """
    from scipy import stats

    known = differences.dropna().to_numpy(dtype=float)
    if known.size < 3 or np.ptp(known) < 1e-12:
        return dict.fromkeys(_NORMALITY, np.nan)
    test = stats.shapiro(known)
    kurtosis = stats.kurtosis(known, bias=False) if known.size > 3 else np.nan
    values = (test.statistic, test.pvalue, stats.skew(known, bias=False), kurtosis)
    return dict(zip(_NORMALITY, map(float, values), strict=True))


def _levels(table: pd.DataFrame, by: str | None) -> list[Any]:
    return sorted(table[by].dropna().unique()) if by else []


def _effect_cells(y: np.ndarray, contrast: np.ndarray) -> dict[str, Any]:
    from scipy import stats

    n, p = len(y), len(contrast)
    if p == 0:
        return {'reason': 'only one level'}
    if n < 2:
        return {'reason': f'{n} subjects with all combinations, at least 2 are needed'}
    scores = y @ contrast.T
    mean = scores.mean(axis=0)
    residual = (scores - mean).T @ (scores - mean)
    error, df = float(np.trace(residual)), n - 1
    if no_variance(error, y):
        return {'reason': 'the effect is the same in all subjects'}
    f = n * float(mean @ mean) * df / error
    sphere = sphericity(residual, df)
    epsilon = sphere.greenhouse_geisser
    df1, df2 = p * epsilon, p * df * epsilon
    eta, low, high = partial_eta_squared(f, df1, df2)
    return {
        'f': f,
        'df1': df1,
        'df2': df2,
        'p': float(stats.f.sf(f, df1, df2)),
        'p_sphericity_assumed': float(stats.f.sf(f, p, p * df)),
        'p_huynh_feldt': float(stats.f.sf(f, p * sphere.huynh_feldt, p * df * sphere.huynh_feldt)),
        'epsilon_greenhouse_geisser': epsilon,
        'epsilon_huynh_feldt': sphere.huynh_feldt,
        'mauchly_w': sphere.mauchly_w,
        'mauchly_p': sphere.mauchly_p,
        'partial_eta_squared': eta,
        'partial_eta_squared_ci_low': low,
        'partial_eta_squared_ci_high': high,
    }


def _sentence(table: pd.DataFrame, value: str) -> str:
    parts = []
    for row in table.to_dict('records'):
        if np.isnan(row['p']):
            parts.append(f'{row["effect"]} is not known ({row["reason"]})')
            continue
        eta = interval_text(
            *(row[f'partial_eta_squared{end}'] for end in ('', '_ci_low', '_ci_high'))
        )
        parts.append(
            f'{row["effect"]} {"has" if is_effect(row["p"]) else "was not found to have"} an '
            f'effect on {value} (F({row["df1"]:.1f}, {row["df2"]:.1f}) = {row["f"]:.2f}, '
            f'{p_text(row["p"])}, partial eta squared {eta})'
        )
    text = '; '.join(parts)
    return f'{text[0].upper()}{text[1:]}, n = {table["n"].iloc[0]}.'
