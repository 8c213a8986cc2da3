"""Mixed model of repeated sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    MIN_DF,
    Analysis,
    counted,
    effects,
    interval_text,
    listed,
    tested_table,
    too_few,
    why_not_tested,
)
from bids_muscle.statistics.effect_size import CONFIDENCE
from bids_muscle.statistics.linear_model import SEX_CODE, is_collinear, no_variance, unknown
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

_ESTIMATE = ('estimate', 'estimate_ci_low', 'estimate_ci_high')
MIXED_COLUMNS = (
    'muscle', 'term', 'session_order', 'controlled', 'n', 'n_observations', *_ESTIMATE,
    'estimate_se', 't', 'df', 'p', 'p_holm', 'cohen_d', 'cohen_d_ci_low', 'cohen_d_ci_high',
    'sd_between', 'sd_within', 'reason',
)  # fmt: skip


@dataclass(frozen=True)
class RandomIntercept:
    """Linear model with a random intercept for each group.

    Parameters
    ----------
    coefficients, errors
        (q,) coefficients and their standard errors.
    sd_between, sd_within
        Standard deviations of the intercepts and of the residuals.
    """

    coefficients: np.ndarray
    errors: np.ndarray
    sd_between: float
    sd_within: float


def random_intercept(y: np.ndarray, design: np.ndarray, groups: np.ndarray) -> RandomIntercept:
    """Fit a random-intercept model by restricted maximum likelihood (REML).

    The likelihood is profiled down to the ratio of the two variances, which takes milliseconds
    for tens of thousands of participants.

    Parameters
    ----------
    y
        (n,) outcome.
    design
        (n, q) fixed effects of full rank.
    groups
        (n,) whole numbers from 0, the participant of each row.

    Notes
    -----
    Laird NM, Ware JH. Biometrics 1982;38:963-974, for V = I + ratio Z Z', whose inverse is known.
    """
    from scipy.optimize import minimize_scalar

    data = np.column_stack([design, y])
    counts = np.bincount(groups)
    sums = np.column_stack([np.bincount(groups, column) for column in data.T])
    products, df = data.T @ data, y.size - design.shape[1]

    def weighted(ratio: float) -> np.ndarray:
        return products - (sums.T * (ratio / (1 + counts * ratio))) @ sums

    def solve(ratio: float) -> tuple[np.ndarray, np.ndarray, float]:
        cross = weighted(ratio)
        inverse = np.linalg.inv(cross[:-1, :-1])
        coefficients = inverse @ cross[:-1, -1]
        return coefficients, inverse, float(cross[-1, -1] - cross[:-1, -1] @ coefficients)

    def deviance(log_ratio: float) -> float:
        ratio = float(np.exp(log_ratio))
        _, inverse, rss = solve(ratio)
        return float(
            df * np.log(rss) + np.log1p(counts * ratio).sum() - np.linalg.slogdet(inverse)[1]
        )

    best = minimize_scalar(deviance, bounds=(-14, 14), method='bounded', options={'xatol': 1e-9})
    ratio = float(np.exp(best.x))
    coefficients, inverse, rss = solve(ratio)
    variance = rss / df
    return RandomIntercept(
        coefficients, np.sqrt(variance * np.diag(inverse)), sqrt(variance * ratio), sqrt(variance)
    )


def mixed_model(
    values: pd.DataFrame,
    people: pd.DataFrame,
    covariates: Sequence[str] = ('age', 'bmi'),
    *,
    order: SessionOrder,
) -> Analysis:
    """Model each muscle over sessions, with a random intercept per participant.

    Unlike the paired comparison it uses participants who missed a session.

    Parameters
    ----------
    values
        One row per participant and session (the index has both), one column per muscle.
    people
        ``sex`` and covariates by participant; covariates are centred.
    covariates
        Columns of `people`.
    order
        The sessions in the order of time; values of others are left out.

    Returns
    -------
    Analysis
        For each muscle the change from the first session to each later one, and the effects of
        sex and covariates. Cohen's d is the estimate over the standard deviation of one value.

    Notes
    -----
    Student's t with the degrees of freedom of nlme: what changes within people is tested against
    the values within them, what does not, against the people (Pinheiro JC, Bates DM. Mixed-Effects
    Models in S and S-PLUS. Springer 2000, section 2.4.2).
    """
    values = values[values.index.get_level_values(1).isin(order.names)]
    rows = [
        row for muscle in values for row in _mixed_rows(values[muscle], people, covariates, order)
    ]
    table = tested_table(rows, MIXED_COLUMNS).assign(session_order=order.text)
    first = order.present(values.index.get_level_values(1))[0]
    of_session = table[table['term'].str.startswith('session')]
    if reason := why_not_tested(of_session):
        return Analysis(table, (f'The mixed model was not fitted: {reason}.',))
    what = [
        f'{row["muscle"]} ({row["term"]}) by {interval_text(*(row[name] for name in _ESTIMATE))}'
        for row in effects(of_session).to_dict('records')
    ]
    text = f'changed ({AFTER_HOLM}) in {listed(what)}' if what else 'was not found to change'
    tested = of_session[of_session['p'].notna()]
    counts = f'{counted(tested["n"])}, {counted(tested["n_observations"])[4:]} values'
    said = f'In the mixed model the measure {text} ({counts} a muscle; sessions against {first}, '
    return Analysis(table, (f'{said}order by {order.source}).',))


def _mixed_rows(
    values: pd.Series, people: pd.DataFrame, covariates: Sequence[str], order: SessionOrder
) -> list[dict[str, Any]]:
    from scipy import stats

    participants, sessions = (values.index.get_level_values(i) for i in (0, 1))
    later = order.present(sessions)[1:]
    columns = {f'session {name}': (sessions == name).astype(float) for name in later}
    reason = None
    lacking = unknown(people, ['sex', *covariates])
    for term in ('sex', *covariates):
        if term in lacking:
            continue
        column = people[term].map(SEX_CODE) if term == 'sex' else people[term]
        columns[term] = column.reindex(participants).to_numpy(dtype=float)
    y, x = values.to_numpy(dtype=float), np.column_stack(list(columns.values()))
    known = np.isfinite(y) & np.isfinite(x).all(axis=1)
    y, x = y[known], x[known]
    _, groups = np.unique(participants[known], return_inverse=True)
    varies = np.ptp(x, axis=0) > 0 if len(x) else np.zeros(x.shape[1], bool)
    terms = np.array(list(columns))
    n = int(groups.max() + 1) if len(groups) else 0
    shared = {'muscle': values.name, 'n': n, 'n_observations': len(y)}
    shared['controlled'] = ', '.join(terms[varies & ~np.char.startswith(terms, 'session')])
    if few := too_few(n, int(varies.sum()) + 1):
        reason = few
    elif n == len(y):
        reason = 'no participant has the muscle in two sessions'
    elif (left := len(y) - n) < (needed := len(later) + MIN_DF):
        reason = f'{left} values beside the first are too few; at least {needed} are needed'
    elif is_collinear(x[:, varies]):
        reason = f'{listed(list(terms[varies]))} are collinear'
    elif no_variance(_residual_within(y, groups), y):
        reason = 'no participant changes between sessions'
    absent = [shared | {'term': t, 'reason': f'no participant has {t}'} for t in lacking]
    if reason:
        return [shared | {'term': term, 'reason': reason} for term in terms] + absent
    x = x - x.mean(axis=0) * ~np.char.startswith(terms, 'session')
    model = random_intercept(y, np.column_stack([np.ones(len(y)), x[:, varies]]), groups)
    total = sqrt(model.sd_between**2 + model.sd_within**2)
    rows = []
    for i, (term, df) in enumerate(
        zip(terms[varies], _containment_df(x[:, varies], groups), strict=True), start=1
    ):
        estimate, error = float(model.coefficients[i]), float(model.errors[i])
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * error
        low, high = estimate - half, estimate + half
        rows.append(
            shared
            | {
                'term': str(term),
                'estimate': estimate,
                'estimate_ci_low': low,
                'estimate_ci_high': high,
                'estimate_se': error,
                't': estimate / error,
                'df': int(df),
                'p': 2 * float(stats.t.sf(abs(estimate / error), df)),
                'cohen_d': estimate / total,
                'cohen_d_ci_low': low / total,
                'cohen_d_ci_high': high / total,
                'sd_between': model.sd_between,
                'sd_within': model.sd_within,
            }
        )
    same = [{'term': term, 'reason': f'{term} is the same in all'} for term in terms[~varies]]
    return rows + [shared | row for row in same] + absent


def _containment_df(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the degrees of freedom of each column of (n, q) fixed effects; see nlme.

    Examples
    --------
    >>> later, sex = [0, 1] * 6, [0] * 6 + [1] * 6
    >>> _containment_df(np.column_stack([later, sex]), np.repeat(np.arange(6), 2)).tolist()
    [5, 4]
    """
    _, first = np.unique(groups, return_index=True)
    within = (x != x[first][groups]).any(axis=0)
    n = len(first)
    return np.where(within, len(x) - n - within.sum(), n - 1 - (~within).sum())


def _residual_within(y: np.ndarray, groups: np.ndarray) -> float:
    """Sum of squares around the mean of each participant."""
    mean = np.bincount(groups, y) / np.bincount(groups)
    return float(((y - mean[groups]) ** 2).sum())
