"""Agreement of a measure with a reference: Bland-Altman, ICC, correlation, errors, calibration.

Definitions are those of Weber 2021 (Tables 2 and 3, Figures 3 and 4). Also the agreement of two
raters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np

from bids_muscle.statistics.effect_size import CONFIDENCE, correlation_interval

#: Fewer pairs than this have a bias, but neither limits of agreement nor an ICC.
MIN_PAIRS = 3
#: Limits of agreement are this many standard deviations from the bias.
LIMIT = 1.96


@dataclass(frozen=True)
class Calibration:
    """Regression through the origin, reference = slope x test, that corrects a bias.

    Parameters
    ----------
    slope
        Coefficient of the reference on the test; above 1, the test is too low.
    ci_low, ci_high
        Its 95 % confidence interval.
    n
        Pairs.
    """

    slope: float
    ci_low: float
    ci_high: float
    n: int

    def correct(self, test: np.ndarray) -> np.ndarray:
        """Return `test` on the scale of the reference.

        The slope must come from other participants than those it corrects.
        """
        return self.slope * np.asarray(test, dtype=float)


@dataclass(frozen=True)
class IntraclassCorrelation:
    """ICC(2,1): two-way random effects, absolute agreement, single measure.

    Parameters
    ----------
    icc
        Coefficient.
    ci_low, ci_high
        Its 95 % confidence interval.
    f, df1, df2, p
        Test that the coefficient is 0.
    """

    icc: float
    ci_low: float
    ci_high: float
    f: float
    df1: int
    df2: int
    p: float


@dataclass(frozen=True)
class Agreement:
    """How a test agrees with a reference, in the unit of the measure.

    Parameters
    ----------
    n, n_missing
        Pairs used, and pairs left out because a value is missing.
    mean_test, mean_reference, se_test
        Means, and the standard error of that of the test.
    bias, bias_ci_low, bias_ci_high
        Mean of test - reference.
    sd_difference
        Standard deviation of test - reference.
    loa_low, loa_high
        95 % limits of agreement, bias -+ 1.96 standard deviations.
    loa_low_ci_low, loa_low_ci_high, loa_high_ci_low, loa_high_ci_high
        Their confidence intervals.
    mae, rmse
        Mean absolute error; root of the mean squared error.
    pearson_r, pearson_ci_low, pearson_ci_high, pearson_p, r_squared
        Linear correlation; it does not see a bias.
    icc, icc_ci_low, icc_ci_high, icc_p
        ICC(2,1).
    calibration_slope, calibration_ci_low, calibration_ci_high
        Regression of the reference on the test through the origin.
    calibrated_bias, calibrated_mae
        Bias and mean absolute error after correction by the slope of all other pairs: what the
        calibration is worth for somebody new.
    reason
        Why a value is missing.
    """

    n: int
    n_missing: int
    mean_test: float = nan
    se_test: float = nan
    mean_reference: float = nan
    bias: float = nan
    bias_ci_low: float = nan
    bias_ci_high: float = nan
    sd_difference: float = nan
    loa_low: float = nan
    loa_low_ci_low: float = nan
    loa_low_ci_high: float = nan
    loa_high: float = nan
    loa_high_ci_low: float = nan
    loa_high_ci_high: float = nan
    mae: float = nan
    rmse: float = nan
    pearson_r: float = nan
    pearson_ci_low: float = nan
    pearson_ci_high: float = nan
    pearson_p: float = nan
    r_squared: float = nan
    icc: float = nan
    icc_ci_low: float = nan
    icc_ci_high: float = nan
    icc_p: float = nan
    calibration_slope: float = nan
    calibration_ci_low: float = nan
    calibration_ci_high: float = nan
    calibrated_bias: float = nan
    calibrated_mae: float = nan
    reason: str | None = None

    @property
    def sentence(self) -> str:
        """The result in words."""
        if self.n < MIN_PAIRS:
            return f'Agreement was not tested: {self.reason}.'
        return (
            f'Over {self.n} pairs the test differs from the reference by {self.bias:.2f} on '
            f'average (95 % limits of agreement {self.loa_low:.2f} to {self.loa_high:.2f}), with '
            f'a mean absolute error of {self.mae:.2f} and an ICC(2,1) of {self.icc:.3f} (95 % CI '
            f'{self.icc_ci_low:.3f} to {self.icc_ci_high:.3f}).'
        )


def agreement(test: np.ndarray, reference: np.ndarray) -> Agreement:
    """Compare paired measures.

    Parameters
    ----------
    test, reference
        (N,) values in one unit; pairs with a missing value are left out and counted.

    Returns
    -------
    Agreement
        What cannot be computed is NaN, and ``reason`` says why.

    Raises
    ------
    ValueError
        If the lengths differ.

    Notes
    -----
    Confidence intervals of the limits after Bland JM, Altman DG. Stat Methods Med Res
    1999;8:135-160, section 2.
    """
    from scipy import stats

    test, reference = np.asarray(test, dtype=float), np.asarray(reference, dtype=float)
    if test.shape != reference.shape or test.ndim != 1:
        raise ValueError(f'test and reference have shapes {test.shape} and {reference.shape}')
    known = np.isfinite(test) & np.isfinite(reference)
    test, reference = test[known], reference[known]
    n, n_missing = test.size, int(known.size - test.size)
    if n == 0:
        return Agreement(n, n_missing, reason='no pairs')
    difference = test - reference
    means: dict[str, Any] = {
        'n': n,
        'n_missing': n_missing,
        'mean_test': float(test.mean()),
        'se_test': float(test.std(ddof=1)) / sqrt(n) if n > 1 else nan,
        'mean_reference': float(reference.mean()),
        'bias': float(difference.mean()),
        'mae': float(np.abs(difference).mean()),
        'rmse': float(np.sqrt((difference**2).mean())),
    }
    if n < MIN_PAIRS:
        there = 'is 1 pair' if n == 1 else f'are {n} pairs'
        few = f'there {there}; limits, correlation and ICC need {MIN_PAIRS}'
        return Agreement(**means, reason=few)
    bias, sd = means['bias'], float(difference.std(ddof=1))
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    half_bias = quantile * sd / sqrt(n)
    half_limit = quantile * sd * sqrt(1 / n + LIMIT**2 / (2 * (n - 1)))
    low, high = bias - LIMIT * sd, bias + LIMIT * sd
    r, r_low, r_high, r_p = _pearson(test, reference)
    icc = icc_2_1(np.column_stack([test, reference]))
    slope = calibrate(test, reference)
    left = calibrate_left_out(test, reference) - reference
    reasons = [
        *(['test or reference is constant, so no correlation'] if np.isnan(r) else []),
        *(['all values are equal, so no ICC'] if np.isnan(icc.icc) else []),
        *(
            ['the interval of the ICC is undefined']
            if np.isnan(icc.ci_low) > np.isnan(icc.icc)
            else []
        ),
    ]
    return Agreement(
        **means,
        bias_ci_low=bias - half_bias,
        bias_ci_high=bias + half_bias,
        sd_difference=sd,
        loa_low=low,
        loa_low_ci_low=low - half_limit,
        loa_low_ci_high=low + half_limit,
        loa_high=high,
        loa_high_ci_low=high - half_limit,
        loa_high_ci_high=high + half_limit,
        pearson_r=r,
        pearson_ci_low=r_low,
        pearson_ci_high=r_high,
        pearson_p=r_p,
        r_squared=r**2,
        icc=icc.icc,
        icc_ci_low=icc.ci_low,
        icc_ci_high=icc.ci_high,
        icc_p=icc.p,
        calibration_slope=slope.slope,
        calibration_ci_low=slope.ci_low,
        calibration_ci_high=slope.ci_high,
        calibrated_bias=float(left.mean()),
        calibrated_mae=float(np.abs(left).mean()),
        reason='; '.join(reasons) or None,
    )


def icc_2_1(ratings: np.ndarray) -> IntraclassCorrelation:
    """Compute ICC(2,1), called ICC(A,1) by McGraw and Wong.

    Parameters
    ----------
    ratings
        (n, k) values of n targets by k raters, none missing.

    Returns
    -------
    IntraclassCorrelation
        NaN where all values are the same. The interval is NaN where raters agree perfectly.

    Notes
    -----
    McGraw KO, Wong SP. Psychol Methods 1996;1:30-46, Tables 4 and 7; Shrout PE, Fleiss JL.
    Psychol Bull 1979;86:420-428.
    """
    from scipy import stats

    ratings = np.asarray(ratings, dtype=float)
    n, k = ratings.shape
    rows = ratings.mean(axis=1) - ratings.mean()
    columns = ratings.mean(axis=0) - ratings.mean()
    residual = ratings - ratings.mean() - rows[:, None] - columns
    df1, df2 = n - 1, (n - 1) * (k - 1)
    ms_rows = k * float(rows @ rows) / df1
    ms_columns = n * float(columns @ columns) / (k - 1)
    ms_error = float((residual**2).sum()) / df2
    # Below this the mean squares are rounding errors of the values.
    nothing = float(np.square(np.spacing(np.abs(ratings).max()) * n * k))
    if ms_rows <= nothing:
        return IntraclassCorrelation(nan, nan, nan, nan, df1, df2, nan)
    if max(ms_columns, ms_error) <= nothing:
        return IntraclassCorrelation(1.0, nan, nan, np.inf, df1, df2, 0.0)
    icc = (ms_rows - ms_error) / (ms_rows + (k - 1) * ms_error + k * (ms_columns - ms_error) / n)
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    df = (a * ms_columns + b * ms_error) ** 2 / (
        (a * ms_columns) ** 2 / (k - 1) + (b * ms_error) ** 2 / df2
    )
    upper = (1 + CONFIDENCE) / 2
    f_low, f_high = stats.f.ppf(upper, df1, df), stats.f.ppf(upper, df, df1)
    spread = k * ms_columns + (k * n - k - n) * ms_error
    f = ms_rows / ms_error if ms_error > nothing else np.inf
    with np.errstate(invalid='ignore'):  # quantiles overflow where df is almost 0
        low = n * (ms_rows - f_low * ms_error) / (f_low * spread + n * ms_rows)
        high = n * (f_high * ms_rows - ms_error) / (spread + n * f_high * ms_rows)
    return IntraclassCorrelation(
        icc=icc,
        ci_low=float(low),
        ci_high=float(high),
        f=f,
        df1=df1,
        df2=df2,
        p=float(stats.f.sf(f, df1, df2)),
    )


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> tuple[float, float]:
    """Return the share of equal judgements and Cohen's kappa, which corrects it for chance.

    Parameters
    ----------
    first, second
        Judgements of two raters on the same things, in the same order.

    Returns
    -------
    agreement_pct, kappa
        Equal judgements in percent, and kappa. Kappa is NaN where both raters always gave one and
        the same judgement; both are NaN without judgements.

    Raises
    ------
    ValueError
        If the lengths differ.

    Notes
    -----
    Cohen J. Educ Psychol Meas 1960;20:37-46.

    Examples
    --------
    >>> cohen_kappa(['pass', 'pass', 'fail', 'fail'], ['pass', 'pass', 'fail', 'pass'])
    (75.0, 0.5)
    """
    from statsmodels.stats.inter_rater import cohens_kappa, to_table

    pairs = list(zip(first, second, strict=True))
    if not pairs:
        return nan, nan
    with np.errstate(invalid='ignore'):
        kappa = float(cohens_kappa(to_table(pairs)[0], return_results=False))
    return 100 * sum(one == two for one, two in pairs) / len(pairs), kappa


def calibrate(test: np.ndarray, reference: np.ndarray) -> Calibration:
    """Fit the reference on the test through the origin (Weber 2021, Figures 3 and 4).

    Parameters
    ----------
    test, reference
        (N,) values in one unit, none missing, at least two.

    Examples
    --------
    >>> import numpy as np
    >>> calibration = calibrate(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    >>> calibration.correct(np.array([8.0])).tolist()
    [4.0]
    """
    from scipy import stats

    test, reference = np.asarray(test, dtype=float), np.asarray(reference, dtype=float)
    n, power = test.size, float(test @ test)
    if power == 0 or n < 2:
        return Calibration(nan, nan, nan, n)
    slope = float(test @ reference) / power
    residual = reference - slope * test
    error = sqrt(float(residual @ residual) / (n - 1) / power)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Calibration(slope, slope - half, slope + half, n)


def calibrate_left_out(test: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Correct each value by the slope of all other pairs; NaN where these are all 0.

    Parameters
    ----------
    test, reference
        (N,) values in one unit, none missing.

    Examples
    --------
    >>> import numpy as np
    >>> calibrate_left_out(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        slopes = (test @ reference - test * reference) / (test @ test - test**2)
    return np.where(np.isfinite(slopes), slopes, nan) * test


def _pearson(test: np.ndarray, reference: np.ndarray) -> tuple[float, float, float, float]:
    """Return r, its interval and p; NaN where a value does not vary."""
    from scipy import stats

    if np.ptp(test) == 0 or np.ptp(reference) == 0:
        return nan, nan, nan, nan
    r, p = stats.pearsonr(test, reference)
    return (float(r), *correlation_interval(float(r), test.size), float(p))


def correlation(test: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return Pearson's r and p; NaN below three pairs, or where a value does not vary.

    Examples
    --------
    >>> r, p = correlation(np.array([1.0, 2, 3]), np.array([2.0, 4, 6]))
    >>> round(r, 3), correlation(np.ones(3), np.arange(3.0))
    (1.0, (nan, nan))
    """
    r, _, _, p = _pearson(test, reference) if test.size > 2 else (nan,) * 4
    return r, p


def half_width(values: np.ndarray) -> float:
    """Return half the 95 % confidence interval of a mean; NaN below two values or without end.

    Examples
    --------
    >>> round(half_width(np.array([1.0, 2.0, 3.0])), 3)
    2.484
    """
    from scipy import stats

    n = values.size
    if n < 2 or not np.isfinite(values).all():
        return nan
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return float(quantile * values.std(ddof=1) / sqrt(n))
