"""Groups of people, and numbers of participants.tsv: tested in each muscle, and in their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    ALL_MUSCLES,
    Analysis,
    deciding_p,
    effects,
    interval_text,
    is_effect,
    listed,
    p_text,
    too_few,
)
from bids_muscle.statistics.effect_size import (
    CONFIDENCE,
    cohen_d_interval,
    holm,
    partial_eta_squared,
)
from bids_muscle.statistics.linear_model import SEX_CODE, complete, no_variance, unknown
from bids_muscle.statistics.variables import MIN_PER_GROUP, Variable

if TYPE_CHECKING:
    import pandas as pd

_ESTIMATE = ('estimate', 'estimate_ci_low', 'estimate_ci_high')
_DIFFERENCE = ('difference', 'difference_ci_low', 'difference_ci_high')
_ETA = ('partial_eta_squared', 'partial_eta_squared_ci_low', 'partial_eta_squared_ci_high')
_D = ('cohen_d', 'cohen_d_ci_low', 'cohen_d_ci_high')
GROUP_COLUMNS = (
    'variable', 'explored', 'kind', 'muscle', 'controlled', 'level', 'n_level', 'other_level',
    'n_other_level', 'n_groups', 'n', 'n_excluded', *_ESTIMATE, 'f', 'df1', 'df2', 'p', 'p_holm',
    *_ETA, *_D, 'reason',
)  # fmt: skip
PAIR_COLUMNS = (
    'variable', 'muscle', 'controlled', 'level', 'n_level', 'other_level', 'n_other_level',
    *_DIFFERENCE, 't', 'df', 'p', 'p_holm', *_D, 'reason',
)  # fmt: skip
MEAN_COLUMNS = ('variable', 'muscle', 'controlled', 'level', 'n', 'emm', 'emm_se', 'reason')
_Rows = list[dict[str, Any]]
#: Share of a column that is left beside the others where it does not follow from them.
_DETERMINED = 1e-6


@dataclass(frozen=True)
class Effect:
    """Least-squares effect of some columns beside others.

    Parameters
    ----------
    coefficients
        (k,) of the columns.
    scale
        (k, k) times `variance`, the covariance of the coefficients.
    variance
        Of the residuals.
    df
        Residual degrees of freedom.
    f
        Of all columns together, on k and `df` degrees of freedom.
    left
        (n, k + 1) columns and outcome less what the others explain.
    """

    coefficients: np.ndarray
    scale: np.ndarray
    variance: float
    df: int
    f: float
    left: np.ndarray


def compare_groups(
    values: pd.DataFrame,
    people: pd.DataFrame,
    variables: Sequence[Variable],
    covariates: Sequence[str] = ('age', 'bmi'),
    *,
    with_sites: bool = True,
    explored: bool = False,
) -> dict[str, Analysis]:
    """Test each variable in each muscle, controlled for sex, covariates and site.

    Parameters
    ----------
    values
        Measured values, one row per participant, one column per muscle.
    people
        ``sex``, ``site`` and covariates of the same participants.
    variables
        What is tested, each by itself; one with the name of a term of the model replaces it.
    covariates
        Columns of `people`.
    with_sites
        Whether differences between sites are controlled for.
    explored
        Whether nobody asked for these variables.

    Returns
    -------
    dict
        ``groups``: a test of each variable and muscle, and of the mean of all muscles; with two
        groups or a number also its estimate. ``group_pairs``: the pairs of three or more groups.
        ``group_means``: estimated marginal means at the means of all that is controlled for.
        The points are what is left of a number and of a muscle, for numbers that were asked for.

    Notes
    -----
    Site is a term of the model, and the values are the measured ones: a test of values from which
    ComBat took the sites while it kept the groups finds too much (Nygaard V, Rodland EA, Hovig E.
    Biostatistics 2016;17:29-39).
    """
    import pandas as pd

    mean = values.mean(axis=1, skipna=False).rename(ALL_MUSCLES)
    outcomes = [mean, *(values[muscle] for muscle in values.columns)]
    points: dict[tuple[str, str], np.ndarray] = {}
    rows: dict[str, _Rows] = {'groups': [], 'group_pairs': [], 'group_means': []}
    for variable in variables:
        terms = [term for term in ('sex', *covariates) if term != variable.name]
        terms = [term for term in terms if term not in unknown(people, terms)]
        site = with_sites and variable.name != 'site' and people['site'].nunique() > 1
        columns = _columns(people, terms, site=site)
        own = _codes(variable, people.index)
        usable = np.isfinite(own) & complete(people, terms).to_numpy()
        for y in outcomes:
            *found, effect = _compare(y, variable, own, usable, columns)
            for name, each in zip(rows, found, strict=True):
                rows[name] += each
            if effect and variable.kind == 'number' and not explored:
                points[str(y.name), variable.name] = effect.left
    tables = {
        name: pd.DataFrame(each, columns=list(columns))
        for (name, each), columns in zip(
            rows.items(), (GROUP_COLUMNS, PAIR_COLUMNS, MEAN_COLUMNS), strict=True
        )
    }
    tables['groups']['explored'] = 'yes' if explored else 'no'
    for name in ('groups', 'group_pairs'):
        # The mean of all muscles is no further test of its own.
        table = tables[name]
        single = table['muscle'] != ALL_MUSCLES
        table['p_holm'] = holm(table['p'].where(single).to_numpy(dtype=float))
    said = [_sentence(tables['groups'], each, explored=explored) for each in variables]
    analyses = {'groups': Analysis(tables['groups'], tuple(said), points)}
    if len(tables['group_pairs']):
        many = [
            each for each in variables if (tables['group_pairs']['variable'] == each.name).any()
        ]
        pairs = tuple(_pair_sentence(tables['group_pairs'], each) for each in many)
        analyses['group_pairs'] = Analysis(tables['group_pairs'], pairs)
    if len(tables['group_means']):
        analyses['group_means'] = Analysis(tables['group_means'], ())
    return analyses


def effect_beside(y: np.ndarray, others: np.ndarray, x: np.ndarray) -> Effect | str:
    """Fit columns beside others by least squares; the others may depend on each other.

    Parameters
    ----------
    y
        (n,) outcome.
    others
        (n, q) columns that are controlled for, with an intercept.
    x
        (n, k) columns that are tested.

    Returns
    -------
    Effect or str
        Or why it cannot be fitted.

    Notes
    -----
    Frisch R, Waugh FV. Econometrica 1933;1:387-401: outcome and columns less what the others
    explain.
    """
    length = np.linalg.norm(others, axis=0)
    # The singular values of a column of R are those of the long matrix, and quicker.
    q, r = np.linalg.qr(others[:, length > 0] / length[length > 0])
    turned, singular, _ = np.linalg.svd(r)
    basis = q @ turned[:, singular > _DETERMINED]
    own = x - basis @ (basis.T @ x)
    spread = np.linalg.norm(x - x.mean(axis=0), axis=0)
    if (spread == 0).any():
        return 'determined'
    left_of_x = np.linalg.qr(own / spread, mode='r')
    if np.linalg.svd(left_of_x, compute_uv=False).min() < _DETERMINED:
        return 'determined'
    n, k = x.shape
    if few := too_few(n, basis.shape[1] + k):
        return few
    left = y - basis @ (basis.T @ y)
    scale = np.linalg.inv(own.T @ own)
    coefficients = scale @ (own.T @ left)
    residual = left - own @ coefficients
    df, squares = n - basis.shape[1] - k, float(residual @ residual)
    if no_variance(squares, y):
        return 'no variance is left between participants'
    variance = squares / df
    f = float(coefficients @ (own.T @ own) @ coefficients) / k / variance
    return Effect(coefficients, scale, variance, df, f, np.column_stack([own, left]))


def _codes(variable: Variable, index: pd.Index) -> np.ndarray:
    """Return the place of the level, or the number, of each participant; NaN where unknown."""
    places = {level: place for place, level in enumerate(variable.levels)}
    values = variable.values or {}
    found = (values.get(who, nan) for who in index)
    if variable.kind == 'groups':
        found = (places.get(str(level), nan) for level in found)
    return np.array(list(found), dtype=float)


def _compare(
    outcome: pd.Series,
    variable: Variable,
    own: np.ndarray,
    usable: np.ndarray,
    columns: Mapping[str, np.ndarray],
) -> tuple[_Rows, _Rows, _Rows, Effect | None]:
    """Return the rows of one variable and muscle: its test, its pairs, its means; its effect."""
    muscle, y = outcome.name, outcome.to_numpy(dtype=float)
    row: dict[str, Any] = {'variable': variable.name, 'muscle': muscle, 'kind': variable.kind}
    known = usable & np.isfinite(y)
    places, notes = _large_groups(variable, own[known])
    if variable.kind == 'groups':
        known &= np.isin(own, places)
    own, y = own[known], y[known]
    row |= {'n': len(own), 'n_excluded': len(known) - len(own)}
    reason, x = variable.reason, np.empty((0, 1))
    if variable.kind == 'groups':
        row['n_groups'] = len(places)
        # The first level is the one that others are compared with.
        x = (own[:, None] == np.array(places[1:])).astype(float)
        if len(places) < 2:
            reason = f'fewer than two groups have {MIN_PER_GROUP} participants'
    elif variable.kind:
        x = own[:, None] - (own.mean() if len(own) else 0.0)
        reason = too_few(len(x))
        if not reason and not np.ptp(x):
            reason = f'{variable.name} is the same in all {len(x)} participants'
    if reason:
        return [row | {'reason': '; '.join([reason, *notes])}], [], [], None
    used = {name: column[known] for name, column in columns.items()}
    used = {name: column for name, column in used.items() if np.ptp(column, axis=0).any()}
    row['controlled'] = ', '.join(used) or 'none'
    effect = effect_beside(y, np.column_stack([np.ones(len(x)), *used.values()]), x)
    if not isinstance(effect, Effect):
        if effect == 'determined':
            effect = f'{variable.name} is determined by {_culprit(used, x)} (collinear)'
        return [row | {'reason': '; '.join([effect, *notes])}], [], [], None
    row |= _test_cells(effect, x.shape[1]) | {'reason': '; '.join(notes) or None}
    if variable.kind == 'number':
        return [row | _difference(effect, np.ones(1), 'estimate')], [], [], effect
    counts = {variable.levels[place]: int((own == place).sum()) for place in places}
    middle = (float(y.mean()), x.mean(axis=0))
    return *_group_rows(row, effect, counts, middle), effect


def _large_groups(variable: Variable, own: np.ndarray) -> tuple[list[int], list[str]]:
    """Return the places of the levels that have enough participants, and notes."""
    sizes = [int((own == place).sum()) for place in range(len(variable.levels))]
    places = [place for place, size in enumerate(sizes) if size >= MIN_PER_GROUP]
    notes = list(variable.notes)
    small = [
        f'{level} (n = {sizes[place]})'
        for place, level in enumerate(variable.levels)
        if place not in places
    ]
    if small:
        notes.append(f'fewer than {MIN_PER_GROUP} participants in {listed(small)}, left out')
    return places, notes


def _group_rows(
    row: dict[str, Any],
    effect: Effect,
    counts: Mapping[str, int],
    middle: tuple[float, np.ndarray],
) -> tuple[_Rows, _Rows, _Rows]:
    """Return the test of two groups with its difference, or the pairs of more, and the means.

    `counts` are the sizes of the groups, `middle` the mean of the outcome and of the columns of
    the groups.
    """
    levels, n = list(counts), sum(counts.values())
    shared = {name: row[name] for name in ('variable', 'muscle', 'controlled', 'reason')}
    at = dict(zip(levels, np.eye(len(levels))[:, 1:], strict=True))
    pairs, means = [], []
    for other, level in combinations(levels, 2):
        contrast = at[level] - at[other]
        sides = {
            'level': level,
            'n_level': counts[level],
            'other_level': other,
            'n_other_level': counts[other],
        }
        sides |= _cohen_d(effect, contrast)
        if len(levels) == 2:
            row = row | sides | _difference(effect, contrast, 'estimate')
        else:
            pairs.append(shared | sides | _difference(effect, contrast, 'difference'))
    for level in levels:
        away = at[level] - middle[1]
        error = sqrt(effect.variance * (1 / n + away @ effect.scale @ away))
        mean = middle[0] + float(away @ effect.coefficients)
        cells = {'level': level, 'n': counts[level], 'emm': mean, 'emm_se': error}
        means.append(shared | cells)
    return [row], pairs, means


def _columns(people: pd.DataFrame, terms: Sequence[str], *, site: bool) -> dict[str, np.ndarray]:
    """Return what is controlled for: (n, q) values of each term of all people."""
    columns: dict[str, np.ndarray] = {}
    for term in terms:
        column = people[term].map(SEX_CODE) if term == 'sex' else people[term]
        values = column.to_numpy(dtype=float)
        columns[term] = (values - np.nanmean(values))[:, None]
    if site:
        # Those whose site nobody knows are no reason to lose their group.
        names = np.array([str(name) if name == name else 'n/a' for name in people['site']])
        columns['site'] = (names[:, None] == np.unique(names)[1:]).astype(float)
    return columns


def _culprit(columns: Mapping[str, np.ndarray], x: np.ndarray) -> str:
    """Name the term that determines what is tested: one alone, else all of them."""
    y = np.zeros(len(x))
    for term, column in columns.items():
        others = np.column_stack([np.ones(len(x)), column])
        if effect_beside(y, others, x) == 'determined':
            return term
    return listed(list(columns)) if columns else 'itself'


def _test_cells(effect: Effect, k: int) -> dict[str, Any]:
    from scipy import stats

    eta = partial_eta_squared(effect.f, k, effect.df)
    return {
        'f': effect.f,
        'df1': k,
        'df2': effect.df,
        'p': float(stats.f.sf(effect.f, k, effect.df)),
        **dict(zip(_ETA, eta, strict=True)),
    }


def _difference(effect: Effect, contrast: np.ndarray, name: str) -> dict[str, Any]:
    """Return a contrast of the coefficients with its interval, and for a difference its test."""
    from scipy import stats

    value = float(contrast @ effect.coefficients)
    error = sqrt(effect.variance * (contrast @ effect.scale @ contrast))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, effect.df)) * error
    cells = {name: value, f'{name}_ci_low': value - half, f'{name}_ci_high': value + half}
    if name == 'difference':
        t = value / error
        cells |= {'t': t, 'df': effect.df, 'p': 2 * float(stats.t.sf(abs(t), effect.df))}
    return cells


def _cohen_d(effect: Effect, contrast: np.ndarray) -> dict[str, Any]:
    """Return a difference over the standard deviation within groups, with its interval."""
    spread = sqrt(contrast @ effect.scale @ contrast)
    d = float(contrast @ effect.coefficients) / sqrt(effect.variance)
    return dict(zip(_D, (d, *cohen_d_interval(d / spread, effect.df, spread)), strict=True))


def _sentence(table: pd.DataFrame, variable: Variable, *, explored: bool) -> str:
    """Return the result of one variable in words."""
    own = table[table['variable'] == variable.name]
    overall, *muscles = own.to_dict('records')
    front = f'{variable.name}{" (explored, as --group names no column)" if explored else ""}'
    tested = [row for row in muscles if not np.isnan(row['p'])]
    if not tested and np.isnan(overall['p']):
        return f'{front} was not tested: {overall["reason"]}.'
    said = overall['reason'] if isinstance(overall['reason'], str) else ''
    notes = f' ({said})' if said and not np.isnan(overall['p']) else ''
    found = [
        row['muscle'] + (f' {interval_text(*(row[x] for x in _ESTIMATE))}' * _has_estimate(row))
        for row in tested
        if is_effect(deciding_p(row))
    ]
    single = f'single muscles with {AFTER_HOLM}: {listed(found) if found else "none"}'
    return f'{front}{notes}: {_overall_text(overall, variable)}; {single}.'


def _overall_text(row: Mapping[str, Any], variable: Variable) -> str:
    """Return the test of the mean of all muscles in words."""
    if np.isnan(row['p']):
        return f'the mean of all muscles was not tested ({row["reason"]})'
    eta = interval_text(*(row[name] for name in _ETA))
    where = f'averaged over all muscles and controlled for {row["controlled"]}'
    if not _has_estimate(row):
        found = 'differ' if is_effect(row['p']) else 'were not found to differ'
        return (
            f'{where}, {row["n_groups"]:.0f} groups {found} '
            f'(F({row["df1"]:.0f}, {row["df2"]:.0f}) = {row["f"]:.2f}, {p_text(row["p"])}, '
            f'partial eta squared {eta}, n = {row["n"]:.0f})'
        )
    estimate = interval_text(*(row[name] for name in _ESTIMATE))
    if variable.kind == 'groups':
        return (
            f'{where}, {row["level"]} (n = {row["n_level"]:.0f}) minus {row["other_level"]} '
            f'(n = {row["n_other_level"]:.0f}) is {estimate}, {p_text(row["p"])}, '
            f'Cohen d {row["cohen_d"]:.2f}'
        )
    return (
        f'{where}, the measure changes by {estimate} with each unit of {variable.name}, '
        f'{p_text(row["p"])}, partial eta squared {eta}, n = {row["n"]:.0f}'
    )


def _has_estimate(row: Mapping[str, Any]) -> bool:
    return not np.isnan(row.get('estimate', nan))


def _pair_sentence(table: pd.DataFrame, variable: Variable) -> str:
    own = table[(table['variable'] == variable.name) & (table['muscle'] != ALL_MUSCLES)]
    found = [
        f'{row["muscle"]}, {row["level"]} minus {row["other_level"]}, '
        f'{interval_text(*(row[name] for name in _DIFFERENCE))}'
        for row in effects(own).to_dict('records')
    ]
    return (
        f'{variable.name}: {len(found)} of {len(own)} pairs of groups in single muscles differ '
        f'({AFTER_HOLM}){": " + "; ".join(found) if found else ""}.'
    )
