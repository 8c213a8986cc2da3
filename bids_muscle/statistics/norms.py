"""Normative curves: the distribution of a measure by age and body mass index, of one sex."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Curves of fewer people are not made: they would say little, and too much of single people.
MIN_PEOPLE = 40
#: With fewer people in a group, reference limits are uncertain (CLSI EP28-A3c).
ENOUGH_PEOPLE = 120
#: Each limit of age and body mass index has that many people at it or beyond it.
BEYOND_LIMIT = 5
FOLDS = 5
#: Centiles at which the calibration is stated.
CENTILES_PCT = (5, 25, 50, 75, 95)
#: Below this p, people who were left out fit the curve too badly to trust it.
CALIBRATION_ALPHA = 0.001
#: Quantiles of age at which the spline has its knots (Harrell FE, Regression Modeling Strategies).
_KNOTS = (0.05, 0.35, 0.65, 0.95)
#: Digits of what is kept; more would say nothing of the curve.
_DIGITS = 6


@dataclass(frozen=True)
class Curve:
    """Distribution of a positive measure by age and body mass index.

    The Box-Cox transform of the measure over its median is normal, cut off where the measure
    would be negative (Cole and Green 1992; Rigby and Stasinopoulos 2005, BCCG), so that centiles
    cannot cross. The logarithm of the median is linear or a natural cubic spline in age and
    linear in body mass index; that of the scale is linear in age.

    Parameters
    ----------
    knots_years
        Knots of the spline; two of them make it linear. The outer ones scale the age.
    bmi_middle
        Body mass index at which its term is zero; None where the curve is by age alone.
    coefficients
        (k,) those of the median, then two of the scale, then the shape.
    covariance
        (k, k) their covariance, robust to another distribution than that assumed.
    n
        People behind the curve.
    age_limits_years, bmi_limits
        Outside of them the curve is not known.
    calibration
        ``share_below_<centile>_pct`` of people left out of the fit, and ``p`` of the test that
        they are spread as they should be.

    References
    ----------
    Cole TJ, Green PJ. Statistics in Medicine 1992;11:1305-1319. Rigby RA, Stasinopoulos DM.
    Applied Statistics 2005;54:507-554.
    """

    knots_years: tuple[float, ...]
    bmi_middle: float | None
    coefficients: np.ndarray
    covariance: np.ndarray
    n: int
    age_limits_years: tuple[float, float]
    bmi_limits: tuple[float, float] | None
    calibration: dict[str, float] = field(default_factory=dict)

    @property
    def is_calibrated(self) -> bool:
        """Whether people who were left out are spread as the curve says."""
        return self.calibration.get('p', 1.0) >= CALIBRATION_ALPHA

    def why_not(self, age: float, bmi: float) -> str | None:
        """Return why the curve is not known for somebody, or None.

        Examples
        --------
        >>> curve = Curve((20, 60), None, np.zeros(5), np.zeros((5, 5)), 80, (20, 60), None)
        >>> curve.why_not(75, float('nan'))
        'age is outside of the norms, 20 to 60 years'
        """
        low, high = self.age_limits_years
        if not np.isfinite(age):
            return 'age is unknown'
        if not low <= age <= high:
            return f'age is outside of the norms, {low:g} to {high:g} years'
        if self.bmi_limits is None:
            return None
        low, high = self.bmi_limits
        if not np.isfinite(bmi):
            return 'body mass index is unknown, and the norms depend on it'
        if not low <= bmi <= high:
            return f'body mass index is outside of the norms, {low:g} to {high:g} kg/m2'
        return None

    def z(self, values: np.ndarray, age: np.ndarray, bmi: np.ndarray) -> np.ndarray:
        """Return the z of values, (n,) each, nan for those that are not positive."""
        return _z(self.coefficients, values, *self._designs(age, bmi))

    def z_error(self, values: np.ndarray, age: np.ndarray, bmi: np.ndarray) -> np.ndarray:
        """Return the standard error of z, (n,): how much it depends on who made the norms."""
        designs = self._designs(age, bmi)
        steps = 1e-4 * np.maximum(np.sqrt(np.diag(self.covariance)), 1e-8)

        def change(step: np.ndarray) -> np.ndarray:
            up, down = (_z(self.coefficients + s * step, values, *designs) for s in (1, -1))
            return (up - down) / (2 * step.sum())

        gradient = np.stack([change(step) for step in np.diag(steps)], axis=1)
        variance = np.einsum('ni,ij,nj->n', gradient, self.covariance, gradient)
        return np.sqrt(np.maximum(variance, 0))

    def value(self, centile_pct: float, age: np.ndarray, bmi: np.ndarray) -> np.ndarray:
        """Return the value of a centile, (n,)."""
        from scipy.stats import norm

        median, scale, shape = _parts(self.coefficients, *self._designs(age, bmi))
        whole = norm.cdf(1 / (scale * abs(shape)))
        below = centile_pct / 100
        z = norm.isf((1 - below) * whole) if shape > 0 else norm.ppf(below * whole)
        return np.asarray(np.exp(median) * (1 + shape * scale * z) ** (1 / shape))

    def as_dict(self) -> dict[str, Any]:
        """Return the curve as JSON has it; of the covariance the lower triangle, row by row."""
        rows, columns = np.tril_indices(len(self.coefficients))
        return {
            'n': self.n,
            'age_limits_years': list(self.age_limits_years),
            'bmi_limits': list(self.bmi_limits) if self.bmi_limits else None,
            'knots_years': list(self.knots_years),
            'bmi_middle': self.bmi_middle,
            'coefficients': [_rounded(x) for x in self.coefficients],
            'covariance': [_rounded(x) for x in self.covariance[rows, columns]],
            'calibration': self.calibration,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Curve:
        """Return a curve from what :meth:`as_dict` returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is none.
        """
        coefficients = np.array(content['coefficients'], float)
        k = len(coefficients)
        covariance = np.zeros((k, k))
        covariance[np.tril_indices(k)] = content['covariance']
        covariance += np.tril(covariance, -1).T
        knots = tuple(map(float, content['knots_years']))
        bmi = content['bmi_middle']
        terms = len(knots) + (bmi is not None)
        numbers = [*coefficients, *covariance.ravel(), *knots]
        if k != terms + 3 or not np.isfinite(numbers).all() or list(knots) != sorted(set(knots)):
            raise ValueError('coefficients do not fit the knots')
        low, high = map(float, content['age_limits_years'])
        limits = content['bmi_limits']
        return cls(
            knots,
            None if bmi is None else float(bmi),
            coefficients,
            covariance,
            int(content['n']),
            (low, high),
            None if limits is None else (float(limits[0]), float(limits[1])),
            {str(key): float(value) for key, value in content['calibration'].items()},
        )

    def _designs(self, age: np.ndarray, bmi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _designs(self.knots_years, self.bmi_middle, age, bmi)


def fit_curve(
    values: np.ndarray, age: np.ndarray, bmi: np.ndarray | None, *, seed: int = 0
) -> Curve | str:
    """Fit the curve of one group of people, or say why there is none.

    The median is a spline in age from :data:`ENOUGH_PEOPLE` people on, below it a line.

    Parameters
    ----------
    values
        (n,) measures of n people, finite.
    age
        (n,) ages in years, finite.
    bmi
        (n,) body mass indices, or None for a curve by age alone.
    seed
        Of the folds of the cross-validation.
    """
    n = len(values)
    if n < MIN_PEOPLE:
        return f'{n} people are too few; at least {MIN_PEOPLE} are needed'
    if (values <= 0).any():
        return 'some values are 0, for which the distribution is undefined'
    age_limits = _limits(age)
    bmi_limits = None if bmi is None else _limits(bmi)
    if age_limits[0] >= age_limits[1] or (bmi_limits and bmi_limits[0] >= bmi_limits[1]):
        return 'age or body mass index does not vary enough'
    middle = None if bmi is None else float(np.round(np.median(bmi)))
    known_bmi = np.full(n, np.nan) if bmi is None else bmi
    knots = tuple(float(np.round(x)) for x in np.quantile(age, _KNOTS))
    if n < ENOUGH_PEOPLE or len(set(knots)) < len(knots):
        knots = (knots[0], knots[-1])
    designs = _designs(knots, middle, age, known_bmi)
    coefficients = _maximise(_start(values, *designs), values, *designs)
    if coefficients is None:
        return 'no distribution could be fitted'
    covariance = _covariance(coefficients, values, *designs)
    if covariance is None:
        return 'the uncertainty of the curve could not be computed'
    return Curve(
        knots,
        middle,
        coefficients,
        covariance,
        n,
        age_limits,
        bmi_limits,
        _calibration(coefficients, values, *designs, seed=seed),
    )


def _calibration(
    coefficients: np.ndarray,
    values: np.ndarray,
    location: np.ndarray,
    scale: np.ndarray,
    *,
    seed: int,
) -> dict[str, float]:
    """Return how those who were left out are spread over the centiles."""
    from scipy.stats import chisquare, norm

    n = len(values)
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    z = np.full(n, np.nan)
    for k in range(FOLDS):
        kept, out = fold != k, fold == k
        found = _maximise(coefficients, values[kept], location[kept], scale[kept])
        if found is not None:
            z[out] = _z(found, values[out], location[out], scale[out])
    z = z[np.isfinite(z)]
    if len(z) < MIN_PEOPLE:
        return {'p': 0.0}
    shares = np.array(CENTILES_PCT) / 100
    below = [float((z < norm.ppf(share)).mean()) for share in shares]
    expected = np.diff([0, *shares, 1]) * len(z)
    counts = np.histogram(z, [-np.inf, *norm.ppf(shares), np.inf])[0]
    return {
        **{f'share_below_{pct}_pct': round(100 * each, 1)
           for pct, each in zip(CENTILES_PCT, below, strict=True)},
        'mean_z': round(float(z.mean()), 3),
        'sd_z': round(float(z.std(ddof=1)), 3),
        'p': _rounded(float(chisquare(counts, expected).pvalue)),
    }  # fmt: skip


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return whole numbers that a few people reach or exceed: nobody's own value."""
    ordered = np.sort(values)
    return float(np.ceil(ordered[BEYOND_LIMIT - 1])), float(np.floor(ordered[-BEYOND_LIMIT]))


def _rounded(value: float) -> float:
    return float(f'{value:.{_DIGITS}g}')


def _designs(
    knots: tuple[float, ...], bmi_middle: float | None, age: np.ndarray, bmi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the designs of the log of the median (n, p) and of that of the scale (n, 2)."""
    t = (np.asarray(age, float) - knots[0]) / (knots[-1] - knots[0])
    inner = (np.array(knots) - knots[0]) / (knots[-1] - knots[0])
    columns = [np.ones_like(t), t]
    last, before = inner[-1], inner[-2]
    # Restricted cubic spline: linear beyond the outer knots (Harrell).
    for knot in inner[:-2]:
        if len(inner) > 2:
            columns.append(
                np.maximum(t - knot, 0) ** 3
                - np.maximum(t - before, 0) ** 3 * (last - knot) / (last - before)
                + np.maximum(t - last, 0) ** 3 * (before - knot) / (last - before)
            )
    scale = np.column_stack(columns[:2])
    if bmi_middle is not None:
        columns.append((np.asarray(bmi, float) - bmi_middle) / 5)
    return np.column_stack(columns), scale


def _parts(
    coefficients: np.ndarray, location: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the log of the median, the scale and the shape."""
    p = location.shape[1]
    shape = float(coefficients[-1])
    # The limit at 0 is the log-normal distribution; close to it the formulas lose digits.
    shape = shape if abs(shape) > 1e-4 else 1e-4
    return location @ coefficients[:p], np.exp(scale @ coefficients[p:-1]), shape


def _z(
    coefficients: np.ndarray, values: np.ndarray, location: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    from scipy.special import log_ndtr, ndtri_exp

    values = np.asarray(values, float)
    values = np.where(values > 0, values, np.nan)
    median, sd, shape = _parts(coefficients, location, scale)
    raw = np.expm1(shape * (np.log(values) - median)) / (shape * sd)
    cut = 1 / (sd * abs(shape))
    low, high = (-cut, np.inf) if shape > 0 else (-np.inf, cut)
    # Logarithms of the nearer tail: far out, where a scan is wrong, the share itself rounds to 0.
    below, above = (
        log_ndtr(at) + np.log1p(-np.exp(log_ndtr(end) - log_ndtr(at))) - log_ndtr(cut)
        for at, end in ((raw, low), (-raw, -high))
    )
    return np.asarray(np.where(raw < 0, ndtri_exp(below), -ndtri_exp(above)))


def _scores(
    coefficients: np.ndarray, values: np.ndarray, location: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return minus the log-likelihood of each value (n,), and its gradient (n, k)."""
    from scipy.special import log_ndtr

    median, sd, shape = _parts(coefficients, location, scale)
    log_ratio = np.log(values) - median
    power = np.exp(shape * log_ratio)
    z = (power - 1) / (shape * sd)
    cut = 1 / (sd * abs(shape))
    loss = z**2 / 2 + np.log(sd) + log_ndtr(cut) - shape * log_ratio + np.log(values)
    hazard = np.exp(-(cut**2) / 2 - log_ndtr(cut)) / np.sqrt(2 * np.pi)
    by_shape = (log_ratio * power - z * sd) / (shape * sd)
    to_location = shape - z * power / sd
    to_scale = 1 - z**2 - hazard * cut
    to_shape = z * by_shape - log_ratio - hazard * cut / shape
    gradient = np.column_stack(
        [to_location[:, None] * location, to_scale[:, None] * scale, to_shape]
    )
    return loss, gradient


def _start(values: np.ndarray, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return least squares of the logarithm, a constant scale and a middling shape."""
    logs = np.log(values)
    fitted = np.linalg.lstsq(location, logs, rcond=None)[0]
    spread = max(float((logs - location @ fitted).std()), 1e-6)
    return np.array([*fitted, np.log(spread), *np.zeros(scale.shape[1] - 1), 0.5])


def _maximise(
    start: np.ndarray, values: np.ndarray, location: np.ndarray, scale: np.ndarray
) -> np.ndarray | None:
    """Return the coefficients of the largest likelihood, or None."""
    from scipy.optimize import minimize

    def mean(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(all='ignore'):
            loss, gradient = _scores(coefficients, values, location, scale)
        if not (np.isfinite(loss).all() and np.isfinite(gradient).all()):
            return 1e10, np.zeros_like(coefficients)
        return float(loss.mean()), gradient.mean(axis=0)

    # In units of the information at the start a few steps are enough.
    information = np.cov(_scores(start, values, location, scale)[1].T, bias=True)
    if not np.isfinite(information).all():
        return None
    ridge = 1e-9 * np.eye(len(start)) * max(float(np.trace(information)), 1e-9)
    unit = np.linalg.inv(np.linalg.cholesky(information + ridge)).T

    def scaled(steps: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = mean(start + unit @ steps)
        return loss, unit.T @ gradient

    found = minimize(scaled, np.zeros_like(start), jac=True, method='BFGS', options={'gtol': 1e-5})
    # BFGS may stop for lack of digits where the gradient is as good as zero.
    if found.fun >= 1e9 or np.abs(found.jac).max() > 1e-3:
        return None
    return np.asarray(start + unit @ found.x)


def _covariance(
    coefficients: np.ndarray, values: np.ndarray, location: np.ndarray, scale: np.ndarray
) -> np.ndarray | None:
    """Return the sandwich estimate of the covariance (k, k), or None."""
    gradient = _scores(coefficients, values, location, scale)[1]
    steps = 1e-5 * np.maximum(np.abs(coefficients), 1e-2)
    hessian = np.stack(
        [
            (
                _scores(coefficients + h, values, location, scale)[1].sum(axis=0)
                - _scores(coefficients - h, values, location, scale)[1].sum(axis=0)
            )
            / (2 * h.sum())
            for h in np.diag(steps)
        ]
    )
    try:
        bread = np.linalg.inv((hessian + hessian.T) / 2)
    except np.linalg.LinAlgError:
        return None
    covariance = bread @ (gradient.T @ gradient) @ bread
    good = np.isfinite(covariance).all() and (np.diag(covariance) > 0).all()
    return covariance if good else None
