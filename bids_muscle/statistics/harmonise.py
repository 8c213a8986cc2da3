"""Differences between sites, and ComBat, which removes them (Johnson 2007, Fortin 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    Analysis,
    counted,
    effects,
    listed,
    tested_table,
    too_few,
    why_not_tested,
)
from bids_muscle.statistics.effect_size import partial_eta_squared
from bids_muscle.statistics.linear_model import (
    SEX_CODE,
    complete,
    is_collinear,
    no_variance,
    unknown,
)
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

SITE_COLUMNS = (
    'muscle', 'controlled', 'n', 'n_excluded', 'n_sites', 'f', 'df1', 'df2', 'p', 'p_holm',
    'partial_eta_squared', 'partial_eta_squared_ci_low', 'partial_eta_squared_ci_high', 'reason',
)  # fmt: skip
HARMONISATION_COLUMNS = ('muscle', 'site', 'controlled', 'n', 'shift', 'scale', 'reason')

#: The spread of a site with fewer people than this is not known.
MIN_PER_SITE = 3
#: Relative change at which the estimates of a site count as settled, as in Johnson's own code.
_SETTLED = 1e-4


@dataclass(frozen=True)
class Combat:
    """Values without the differences between sites.

    Parameters
    ----------
    values
        (n, k) values of k features; missing where they were missing.
    shift
        (s, k) what is added to the mean of each of s sites, in the unit of the values.
    scale
        (s, k) spread of each site in units of the common one.
    """

    values: np.ndarray
    shift: np.ndarray
    scale: np.ndarray


def combat(values: np.ndarray, sites: np.ndarray, covariates: np.ndarray) -> Combat:
    """Remove differences in mean and spread between sites, by empirical Bayes.

    Parameters
    ----------
    values
        (n, k) values of k features; a missing one is left out of its feature alone.
    sites
        (n,) whole numbers from 0; each site needs two values of each feature.
    covariates
        (n, q) what is kept; with the sites it must have full rank.

    Notes
    -----
    Johnson WE, Li C, Rabinovic A. Biostatistics 2007;8:118-127, parametric priors. What is known
    of one feature informs the others; a single feature is corrected by its own mean and spread.
    """
    n_sites = int(sites.max()) + 1
    indicator = (sites[:, None] == np.arange(n_sites)).astype(float)
    design = np.column_stack([indicator, covariates])
    known = np.isfinite(values)
    standard, mean = np.full(values.shape, nan), np.full(values.shape, nan)
    spread = np.empty(values.shape[1])
    for k, use in enumerate(known.T):
        coefficients = np.linalg.lstsq(design[use], values[use, k])[0]
        grand = indicator[use].mean(axis=0) @ coefficients[:n_sites]
        mean[:, k] = grand + covariates @ coefficients[n_sites:]
        spread[k] = np.sqrt(((values[use, k] - design[use] @ coefficients) ** 2).mean())
        standard[:, k] = (values[:, k] - mean[:, k]) / spread[k]
    shift, variance = np.empty((n_sites, values.shape[1])), np.empty((n_sites, values.shape[1]))
    for site in range(n_sites):
        shift[site], variance[site] = _site_effect(standard[sites == site])
    scale = np.sqrt(variance)
    free = (standard - shift[sites]) / scale[sites]
    return Combat(free * spread + mean, shift * spread, scale)


def _site_effect(standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of a site, each drawn towards that of all features."""
    counts = np.isfinite(standard).sum(axis=0)
    own, variance = np.nanmean(standard, axis=0), np.nanvar(standard, axis=0, ddof=1)
    if own.size == 1 or not np.ptp(variance):
        return own, variance
    prior, prior_variance = own.mean(), own.var(ddof=1)
    mean, spread = variance.mean(), variance.var(ddof=1)
    shape, rate = 2 + mean**2 / spread, mean + mean**3 / spread
    shift, scale = own, variance
    change = np.inf
    while change > _SETTLED:
        drawn = prior_variance * counts
        new_shift = (drawn * own + scale * prior) / (drawn + scale)
        squares = np.nansum((standard - new_shift) ** 2, axis=0)
        new_scale = (0.5 * squares + rate) / (counts / 2 + shape - 1)
        with np.errstate(divide='ignore', invalid='ignore'):
            moved = [abs(new_shift - shift) / abs(shift), abs(new_scale - scale) / scale]
        change = float(np.nanmax(moved))
        shift, scale = new_shift, new_scale
    return shift, scale


def harmonise(
    values: pd.DataFrame,
    people: pd.DataFrame,
    covariates: Sequence[str] = ('age', 'bmi'),
    *,
    order: SessionOrder | None = None,
) -> tuple[pd.DataFrame, Analysis, Analysis]:
    """Test the differences between sites and remove them.

    Parameters
    ----------
    values
        One row per participant and session (the index has both), one column per muscle.
    people
        ``site``, ``sex`` and covariates by participant.
    covariates
        Columns of `people`; these, sex and the session are kept.
    order
        The sessions in the order of time, or None where there is one only.

    Returns
    -------
    values : DataFrame
        Like the input, without the differences between sites; those of participants without site,
        sex or covariate are missing. The input itself where nothing can be removed.
    differences, removed : Analysis
        Differences between sites per muscle, in the first session of each participant, and what
        was removed per muscle and site. Both count participants, not sessions.
    """
    terms = ['sex', *covariates]
    who = people.reindex(values.index.get_level_values(0))
    known = (who['site'].notna() & complete(who, terms)).to_numpy()
    kept, who = values[known].dropna(how='all'), who[known]
    who = who[values[known].notna().any(axis=1).to_numpy()]
    names, sites = np.unique(who['site'].astype(str), return_inverse=True)
    terms = [term for term in terms if term not in unknown(people, terms)]
    columns = {
        term: (who[term].map(SEX_CODE) if term == 'sex' else who[term]).to_numpy(dtype=float)
        for term in terms
    }
    sessions = kept.index.get_level_values(1)
    known_order = order.present(sessions) if order else []
    later = [*known_order, *sorted(set(sessions) - {*known_order})][1:]
    columns |= {f'session {name}': (sessions == name).astype(float) for name in later}
    columns = {term: x - x.mean() for term, x in columns.items() if len(x) and np.ptp(x)}
    controlled = ', '.join(columns) or 'none'
    x = np.column_stack([np.empty((len(kept), 0)), *columns.values()])
    people_of_rows = kept.index.get_level_values(0)
    reason = _not_possible(kept, names, sites, x)
    place = {name: at for at, name in enumerate(known_order)}
    in_time = np.lexsort([[place.get(name, len(place)) for name in sessions], people_of_rows])
    first = in_time[~people_of_rows[in_time].duplicated()]
    n_all = values.index.get_level_values(0).nunique()
    varying = [k for k in range(x.shape[1]) if len(first) and np.ptp(x[first, k])]
    differences = _site_table(
        kept.iloc[first],
        names,
        sites[first],
        x[np.ix_(first, varying)],
        ', '.join(list(columns)[k] for k in varying) or 'none',
        reason,
        n_all,
    )
    if reason:
        removed = [
            {'muscle': muscle, 'site': site, 'controlled': controlled, 'reason': reason}
            for muscle in values
            for site in names
        ]
        return (
            values,
            differences,
            _removed(removed, f'Sites were not harmonised: {reason}.'),
        )
    result = combat(kept.to_numpy(dtype=float), sites, x)
    counts = [_people(part) for _, part in kept.groupby(sites)]
    removed = [
        {
            'muscle': muscle,
            'site': site,
            'controlled': controlled,
            'n': int(counts[s][k]),
            'shift': result.shift[s, k],
            'scale': result.scale[s, k],
        }
        for k, muscle in enumerate(kept)
        for s, site in enumerate(names)
    ]
    least, most = result.shift.min(), result.shift.max()
    sentence = (
        f'{len(names)} sites were harmonised by ComBat, keeping {controlled} '
        f'({counted([people_of_rows.nunique()])} of {n_all} participants, {len(kept)} of '
        f'{len(values)} sessions): shifts of the mean of {least:+.2f} to {most:+.2f} were '
        'removed. Results from harmonised values are marked.'
    )
    import pandas as pd

    free = pd.DataFrame(result.values, index=kept.index, columns=kept.columns)
    return free.reindex(values.index), differences, _removed(removed, sentence)


def _people(values: pd.DataFrame) -> np.ndarray:
    """Return of how many participants each feature is known."""
    return values.notna().groupby(level=0).any().sum().to_numpy()


def _not_possible(
    kept: pd.DataFrame, names: np.ndarray, sites: np.ndarray, x: np.ndarray
) -> str | None:
    if len(names) < 2:
        return f'{len(names)} site only' if len(names) else 'site is missing for all participants'
    values = kept.to_numpy(dtype=float)
    counts = [_people(kept[sites == s]) for s in range(len(names))]
    small = [str(name) for name, n in zip(names, counts, strict=True) if n.min() < MIN_PER_SITE]
    if small:
        what = f'{"sites" if len(small) > 1 else "site"} {listed(small)}'
        return f'{what} has fewer than {MIN_PER_SITE} participants with a muscle'
    indicator = (sites[:, None] == np.arange(1, len(names))).astype(float)
    design = np.column_stack([indicator, x])
    if is_collinear(design) or len(values) <= design.shape[1] + 1:
        return 'sites and the preserved covariates are collinear'
    for s in range(len(names)):
        if (np.nanstd(values[sites == s], axis=0) < 1e-9 * np.nanmax(np.abs(values))).any():
            return f'a muscle is the same in all participants of site {names[s]}'
    return None


def _site_table(
    values: pd.DataFrame,
    names: np.ndarray,
    sites: np.ndarray,
    x: np.ndarray,
    controlled: str,
    reason: str | None,
    n_all: int,
) -> Analysis:
    """Test site in each muscle by one-way ANCOVA."""
    rows = []
    for muscle in values:
        y = values[muscle].to_numpy(dtype=float)
        use = np.isfinite(y)
        row: dict[str, Any] = {'muscle': muscle, 'controlled': controlled, 'n': int(use.sum())}
        row |= {'n_excluded': n_all - row['n'], 'n_sites': len(names), 'reason': reason}
        rows.append(row if reason else row | _site_test(y[use], sites[use], x[use]))
    table = tested_table(rows, SITE_COLUMNS)
    if why := why_not_tested(table):
        return Analysis(table, (f'Sites were not compared: {why}.',))
    differ = effects(table)['muscle'].tolist()
    text = f'Sites differ ({AFTER_HOLM}) in {listed(differ) if differ else "no muscle"}'
    return Analysis(table, (f'{text} ({counted(table[table["p"].notna()]["n"])}).',))


def _site_test(y: np.ndarray, sites: np.ndarray, x: np.ndarray) -> dict[str, Any]:
    from scipy import stats

    n_sites = int(sites.max()) + 1
    indicator = (sites[:, None] == np.arange(1, n_sites)).astype(float)
    without = np.column_stack([np.ones(len(y)), x])
    full = np.column_stack([without, indicator])
    if few := too_few(*full.shape):
        return {'reason': few}
    if is_collinear(full[:, 1:]):
        return {'reason': 'sites and the control variables are collinear'}
    small, large = (float(_residual(design, y)) for design in (full, without))
    if no_variance(small, y):
        return {'reason': 'no variance is left within sites'}
    df1, df2 = n_sites - 1, len(y) - full.shape[1]
    f = (large - small) / df1 / (small / df2)
    eta, low, high = partial_eta_squared(f, df1, df2)
    return {
        'f': f,
        'df1': df1,
        'df2': df2,
        'p': float(stats.f.sf(f, df1, df2)),
        'partial_eta_squared': eta,
        'partial_eta_squared_ci_low': low,
        'partial_eta_squared_ci_high': high,
    }


def _residual(design: np.ndarray, y: np.ndarray) -> float:
    residual = y - design @ np.linalg.lstsq(design, y)[0]
    return float(residual @ residual)


def _removed(rows: list[dict[str, Any]], sentence: str) -> Analysis:
    import pandas as pd

    return Analysis(pd.DataFrame(rows, columns=list(HARMONISATION_COLUMNS)), (sentence,))
