"""Confidence intervals of effect sizes and correlations, and p corrected for many tests."""

from __future__ import annotations

import numpy as np

#: All intervals hold the truth with this probability.
CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
#: Beyond this t, and its square as F, the noncentral distributions of scipy fail or take minutes.
_LARGE_T = 300


def cohen_d_interval(t: float, df: float, scale: float) -> tuple[float, float]:
    """Return the interval of Cohen's d from a noncentral t distribution.

    Parameters
    ----------
    t
        Test statistic.
    df
        Its degrees of freedom.
    scale
        What turns `t` into d: 1 / sqrt(n) for paired values; standard error of the difference over
        the standard deviation for groups.

    Notes
    -----
    Cumming G, Finch S. Educ Psychol Meas 2001;61:532-574.
    """
    from scipy.special import nctdtrinc, ndtri

    if abs(t) <= _LARGE_T:
        low, high = nctdtrinc(df, [1 - _TAIL, _TAIL], t)
    else:
        at = abs(t) * np.sqrt(_variance_ratios(df))
        below, above = np.hypot(ndtri(_TAIL), at - abs(t))
        low, high = sorted(np.copysign([abs(t) - below, abs(t) + above], t))
    return float(low * scale), float(high * scale)


def partial_eta_squared(f: float, df1: float, df2: float) -> tuple[float, float, float]:
    """Return partial eta squared and its interval from a noncentral F distribution.

    Notes
    -----
    Steiger JH. Psychol Methods 2004;9:164-182. The interval is two-sided at 95 %, so that it
    leaves out 0 where p is below 0.025.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri
    from scipy.stats import ncf

    size = f * df1
    eta = size / (size + df2)
    if size > _LARGE_T**2:
        below, above = np.hypot(
            2 * np.sqrt(size) * ndtri(_TAIL), size * (_variance_ratios(df2) - 1)
        )
        bounds = [size - below, size + above]
    else:
        bounds = []
        for probability in (1 - _TAIL, _TAIL):

            def excess(noncentrality: float, target: float = probability) -> float:
                return float(ncf.cdf(f, df1, df2, noncentrality)) - target

            end = 100.0
            while excess(end) > 0:
                end *= 2
            bounds.append(brentq(excess, 0.0, end) if excess(0.0) > 0 else 0.0)
    low, high = (max(bound, 0.0) / (max(bound, 0.0) + df1 + df2 + 1) for bound in bounds)
    return eta, low, high


def _variance_ratios(df: float) -> np.ndarray:
    """Return what an estimated variance may be of the true one, at both ends."""
    from scipy.stats import chi2

    return np.asarray(chi2.ppf([_TAIL, 1 - _TAIL], df) / df)


def correlation_interval(r: float, n: int, n_controlled: int = 0) -> tuple[float, float]:
    """Return the interval of a (partial) correlation by Fisher's z.

    Parameters
    ----------
    r
        Correlation.
    n
        Observations.
    n_controlled
        Variables controlled for; each costs one observation.
    """
    from scipy.special import ndtri

    free = n - n_controlled - 3
    if free <= 0 or abs(r) >= 1:
        return np.nan, np.nan
    half = ndtri(1 - _TAIL) / np.sqrt(free)
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p for many tests (Holm 1979); NaN stays NaN and does not count as a test.

    Examples
    --------
    >>> import numpy as np
    >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    corrected = np.array(p, dtype=float)
    tested = np.flatnonzero(~np.isnan(corrected))
    # That of statsmodels collects the garbage of Python each time, which takes most of the time.
    order = tested[np.argsort(corrected[tested], kind='stable')]
    steps = corrected[order] * np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected
