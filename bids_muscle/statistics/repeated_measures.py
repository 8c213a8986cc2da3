"""Repeated-measures ANCOVA: muscle within, sex between, covariates (Weber 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.analysis import (
    Analysis,
    interval_text,
    is_effect,
    p_text,
    tested_table,
)
from bids_muscle.statistics.effect_size import partial_eta_squared
from bids_muscle.statistics.linear_model import (
    INTERCEPT,
    Design,
    complete,
    fit,
    make_design,
    no_variance,
)

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    'effect', 'kind', 'controlled', 'n', 'n_excluded', 'f', 'df1', 'df2', 'p', 'p_holm',
    'p_sphericity_assumed', 'p_huynh_feldt', 'epsilon_greenhouse_geisser',
    'epsilon_huynh_feldt', 'mauchly_w', 'mauchly_p', 'partial_eta_squared',
    'partial_eta_squared_ci_low', 'partial_eta_squared_ci_high', 'reason',
)  # fmt: skip


_ENDS = ('_ci_low', '_ci_high')


@dataclass(frozen=True)
class Sphericity:
    """How far the variances of all differences between muscles are from being equal.

    Parameters
    ----------
    greenhouse_geisser, huynh_feldt
        Epsilon, 1 where they are equal: factors of both degrees of freedom.
    mauchly_w, mauchly_p
        Mauchly's test that they are equal.
    """

    greenhouse_geisser: float
    huynh_feldt: float
    mauchly_w: float
    mauchly_p: float


def rm_ancova(
    values: pd.DataFrame,
    people: pd.DataFrame,
    covariates: Sequence[str] = ('age', 'bmi'),
    *,
    centred: bool = True,
) -> Analysis:
    """Test muscle, sex, covariates and their interactions with muscle.

    Parameters
    ----------
    values
        One row per participant, one column per muscle; those with a missing value are left out.
    people
        ``sex`` and covariates of the same participants.
    covariates
        Columns of `people`.
    centred
        See :func:`bids_muscle.statistics.linear_model.make_design`.

    Returns
    -------
    Analysis
        Within-subject effects (``muscle``, ``muscle x sex``, ...) with degrees of freedom and p
        corrected by the Greenhouse-Geisser epsilon, and between-subject effects.

    Notes
    -----
    Repeated measures are turned into k - 1 orthonormal contrasts, each of which is regressed on
    the design; the sums of squares of all contrasts are added. Sums of squares are of type III.
    Epsilon of Huynh and Feldt with the correction of Lecoutre (J Educ Stat 1991;16:371-372).
    """
    terms = ('sex', *covariates)
    known = values.notna().all(axis=1) & complete(people, terms)
    y = values[known].to_numpy(dtype=float)
    design = make_design(people, known.to_numpy(), terms, centred=centred)
    shared = {'n': int(known.sum()), 'n_excluded': int((~known).sum())}
    rows = [
        shared | {'controlled': design.controlled} | row
        for row in (*_within(y, design, terms), *_between(y, design, terms))
    ]
    table = tested_table(rows, COLUMNS)
    return Analysis(table, (_sentence(table),))


def sphericity(covariance: np.ndarray, df: int) -> Sphericity:
    """Measure sphericity.

    Parameters
    ----------
    covariance
        (p, p) sums of squares and products, or covariance, of p orthonormal contrasts.
    df
        Residual degrees of freedom behind it.
    """
    from scipy import stats

    p = covariance.shape[0]
    trace = float(np.trace(covariance))
    epsilon = trace**2 / (p * float((covariance**2).sum()))
    free = df - p * epsilon
    huynh = min(1.0, ((df + 1) * p * epsilon - 2) / (p * free)) if free > 0 else 1.0
    if p == 1 or df < p:
        return Sphericity(epsilon, huynh, nan, nan)
    sign, log_determinant = np.linalg.slogdet(covariance)
    if sign <= 0:
        return Sphericity(epsilon, huynh, nan, nan)
    # Box's expansion as in R's mauchly.test, which has the number of measures in its last 3 k.
    log_w = log_determinant - p * np.log(trace / p)
    rho = 1 - (2 * p**2 + p + 2) / (6 * p * df)
    second = (p + 2) * (p - 1) * (p - 2) * (2 * p**3 + 6 * p**2 + 3 * (p + 1) + 2)
    second /= 288 * (df * p * rho) ** 2
    statistic, freedom = -df * rho * log_w, p * (p + 1) / 2 - 1
    first, other = stats.chi2.sf(statistic, freedom), stats.chi2.sf(statistic, freedom + 4)
    return Sphericity(
        epsilon, huynh, float(np.exp(log_w)), float(first + second * (other - first))
    )


def _within(y: np.ndarray, design: Design, terms: Sequence[str]) -> list[dict[str, Any]]:
    """Test the muscles and what their differences depend on."""
    from scipy import stats
    from scipy.linalg import helmert

    names = {INTERCEPT: 'muscle'} | {term: f'muscle x {term}' for term in terms}
    if y.shape[1] < 2:
        return _missing(names, 'within', design, 'only one muscle')
    if design.reason:
        return _missing(names, 'within', design, design.reason)
    contrasts = y @ helmert(y.shape[1]).T
    model = fit(design, contrasts)
    error = float(np.trace(model.residual))
    if no_variance(error, y):
        return _missing(
            names,
            'within',
            design,
            'differences between muscles are identical in all participants',
        )
    sphere = sphericity(model.residual, model.df)
    p = contrasts.shape[1]
    rows = []
    for i, term in enumerate(design.terms):
        effect = float((model.coefficients[i] ** 2).sum() / model.scale[i, i])
        f = (effect / p) / (error / (model.df * p))
        chances = {
            name: float(stats.f.sf(f, p * epsilon, p * model.df * epsilon))
            for name, epsilon in (
                ('p', sphere.greenhouse_geisser),
                ('p_huynh_feldt', sphere.huynh_feldt),
                ('p_sphericity_assumed', 1.0),
            )
        }
        df1, df2 = (n * sphere.greenhouse_geisser for n in (p, p * model.df))
        rows.append(
            {
                'effect': names[term],
                'kind': 'within',
                'f': f,
                'df1': df1,
                'df2': df2,
                **chances,
                'epsilon_greenhouse_geisser': sphere.greenhouse_geisser,
                'epsilon_huynh_feldt': sphere.huynh_feldt,
                'mauchly_w': sphere.mauchly_w,
                'mauchly_p': sphere.mauchly_p,
                **_eta(f, df1, df2),
            }
        )
    return rows + _missing({term: names[term] for term in design.left_out}, 'within', design, '')


def _between(y: np.ndarray, design: Design, terms: Sequence[str]) -> list[dict[str, Any]]:
    """Test the mean over all muscles."""
    from scipy import stats

    names = {term: term for term in terms}
    if design.reason or y.shape[1] < 1:
        return _missing(names, 'between', design, design.reason or 'no muscle')
    mean = y.mean(axis=1, keepdims=True)
    model = fit(design, mean)
    error = float(model.residual[0, 0])
    if no_variance(error, mean):
        return _missing(names, 'between', design, 'no variance is left between participants')
    variance = error / model.df
    rows = []
    for i, term in enumerate(design.terms[1:], start=1):
        f = float(model.coefficients[i, 0] ** 2 / model.scale[i, i]) / variance
        chance = float(stats.f.sf(f, 1, model.df))
        rows.append(
            {
                'effect': names[term],
                'kind': 'between',
                'f': f,
                'df1': 1.0,
                'df2': float(model.df),
                'p': chance,
                **_eta(f, 1, model.df),
            }
        )
    return rows + _missing({term: term for term in design.left_out}, 'between', design, '')


def _missing(
    names: dict[str, str], kind: str, design: Design, reason: str
) -> list[dict[str, Any]]:
    return [
        {'effect': name, 'kind': kind, 'reason': design.left_out.get(term) or reason}
        for term, name in names.items()
    ]


def _eta(f: float, df1: float, df2: float) -> dict[str, float]:
    eta, low, high = partial_eta_squared(f, df1, df2)
    return {
        'partial_eta_squared': eta,
        'partial_eta_squared_ci_low': low,
        'partial_eta_squared_ci_high': high,
    }


def _sentence(table: pd.DataFrame) -> str:
    parts = []
    for row in table[table['effect'].isin(['muscle', 'sex'])].to_dict('records'):
        what = 'muscles' if row['effect'] == 'muscle' else 'women and men'
        if np.isnan(row['p']):
            parts.append(f'whether {what} differ was not tested ({row["reason"]})')
            continue
        found = 'differ' if is_effect(row['p']) else 'were not found to differ'
        eta = interval_text(*(row[f'partial_eta_squared{end}'] for end in ('', *_ENDS)))
        parts.append(
            f'{what} {found} (F({row["df1"]:.1f}, {row["df2"]:.1f}) = {row["f"]:.2f}, '
            f'{p_text(row["p"])}, partial eta squared {eta})'
        )
    text = '; '.join(parts)
    number = f', n = {table["n"].iloc[0]}' if table['p'].notna().any() else ''
    return f'{text[0].upper()}{text[1:]}{number}.'
