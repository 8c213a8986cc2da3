"""Normative curves of people drawn from a known distribution."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import kstest, norm

from bids_muscle.statistics import norms
from bids_muscle.statistics.norms import MIN_PEOPLE, Curve, fit_curve

SHAPE = 0.4
NONE = np.array([np.nan])


class Drawn(NamedTuple):
    """People, and the z that each was drawn with."""

    values: np.ndarray
    age: np.ndarray
    bmi: np.ndarray
    z: np.ndarray

    @property
    def given(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a curve is fitted to."""
        return self.values, self.age, self.bmi


def median(age: np.ndarray, bmi: np.ndarray) -> np.ndarray:
    """MFI of 12 % at 40 years, faster later on, and with body mass index."""
    return 12 * np.exp(0.012 * (age - 40) + 1e-4 * (age - 40) ** 2 + 0.02 * (bmi - 26))


def draw(n: int, seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    age, bmi, z = rng.uniform(20, 80, n), rng.normal(26, 4, n), rng.normal(size=n)
    scale = 0.25 * np.exp(0.004 * (age - 40))
    return Drawn(median(age, bmi) * (1 + SHAPE * scale * z) ** (1 / SHAPE), age, bmi, z)


@pytest.fixture(scope='module')
def curve() -> Curve:
    found = fit_curve(*draw(2000, 1).given)
    assert isinstance(found, Curve)
    return found


def test_the_known_curve_is_found_again(curve: Curve) -> None:
    age, bmi = np.array([30.0, 50.0, 70.0]), np.array([26.0, 22.0, 30.0])
    np.testing.assert_allclose(curve.value(50, age, bmi), median(age, bmi), rtol=0.04)
    scale = 0.25 * np.exp(0.004 * (age - 40))
    high = median(age, bmi) * (1 + SHAPE * scale * norm.ppf(0.95)) ** (1 / SHAPE)
    np.testing.assert_allclose(curve.value(95, age, bmi), high, rtol=0.05)


def test_centiles_of_other_people_are_uniform(curve: Curve) -> None:
    others = draw(2000, 2)
    assert kstest(norm.cdf(curve.z(*others.given)), 'uniform').pvalue > 0.01
    assert curve.is_calibrated
    assert curve.calibration['share_below_95_pct'] == pytest.approx(95, abs=1.5)


def test_the_interval_holds_the_true_z() -> None:
    """Over small cohorts 95 % of the intervals do."""
    inside = []
    for seed in range(20):
        found = fit_curve(*draw(150, 100 + seed).given)
        assert isinstance(found, Curve)
        others = draw(100, 200 + seed)
        off = np.abs(found.z(*others.given) - others.z)
        inside.append((off < 1.96 * found.z_error(*others.given)).mean())
    assert 0.9 < np.mean(inside) < 0.99


def test_centiles_do_not_cross_and_z_is_their_inverse(curve: Curve) -> None:
    age, bmi = np.linspace(20, 80, 13), np.full(13, 26.0)
    values = np.array([curve.value(pct, age, bmi) for pct in (1, 5, 25, 50, 75, 95, 99)])
    assert (np.diff(values, axis=0) > 0).all()
    np.testing.assert_allclose(curve.z(values[1], age, bmi), norm.ppf(0.05), atol=1e-6)


@pytest.mark.parametrize('shape', [0.4, -0.4])
def test_the_farthest_values_have_a_z(curve: Curve, shape: float) -> None:
    """Water and fat of a scan are swapped, or it shows a slice of the muscle."""
    found = replace(curve, coefficients=np.array([*curve.coefficients[:-1], shape]))
    middle = found.value(50, np.array([40.0]), np.array([26.0]))
    factors = np.array([0.001, 0.01, 0.1, 0.5, 1, 2, 10, 20, 100])
    ages, bmis = np.full(len(factors), 40.0), np.full(len(factors), 26.0)
    z = found.z(middle * factors, ages, bmis)
    error = found.z_error(middle * factors, ages, bmis)
    assert np.isfinite([z, error]).all()
    assert (np.diff(z) > 0).all()
    # The same as the quantiles say, where these can be computed.
    for pct in (0.1, 30, 50, 70, 99.9):
        value = found.value(pct, ages[:1], bmis[:1])
        np.testing.assert_allclose(
            found.z(value, ages[:1], bmis[:1]), norm.ppf(pct / 100), atol=1e-9
        )


def test_the_gradient_is_that_of_the_likelihood() -> None:
    drawn = draw(60, 3)
    designs = norms._designs((20.0, 40.0, 60.0, 80.0), 26.0, drawn.age, drawn.bmi)
    at = np.array([2.5, 0.1, 0.2, -0.1, 0.05, -1.2, 0.2, SHAPE])
    _, gradient = norms._scores(at, drawn.values, *designs)
    for k, step in enumerate(1e-5 * np.eye(len(at))):
        up, down = (norms._scores(at + s * step, drawn.values, *designs)[0] for s in (1, -1))
        np.testing.assert_allclose(gradient[:, k], (up - down) / 2e-5, atol=1e-6)


def test_a_wrong_distribution_is_called_uncalibrated() -> None:
    """Two kinds of people, lean and fat, are not one distribution."""
    drawn = draw(600, 4)
    fat = np.where(np.random.default_rng(5).random(600) < 0.35, 4.0, 1.0)
    found = fit_curve(drawn.values * fat, drawn.age, drawn.bmi)
    assert isinstance(found, str) or not found.is_calibrated


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda d: [each[: MIN_PEOPLE - 1] for each in d.given], 'too few'),
        (lambda d: [np.where(d.age < 22, 0, d.values), d.age, d.bmi], 'values are 0'),
        (lambda d: [d.values, np.full_like(d.age, 40), d.bmi], 'does not vary'),
    ],
)
def test_no_curve_without_what_it_needs(change: object, reason: str) -> None:
    found = fit_curve(*change(draw(100, 6)))  # type: ignore[operator]
    assert isinstance(found, str)
    assert reason in found


def test_outside_of_the_limits_there_is_nothing(curve: Curve) -> None:
    assert curve.why_not(50, 26) is None
    assert 'age is outside' in str(curve.why_not(90, 26))
    assert 'age is unknown' in str(curve.why_not(np.nan, 26))
    assert 'index is outside' in str(curve.why_not(50, 60))
    assert 'index is unknown' in str(curve.why_not(50, np.nan))


def test_what_is_kept_is_the_curve_and_nobody_in_it(curve: Curve) -> None:
    drawn = draw(2000, 1)
    text = json.dumps(curve.as_dict())
    assert len(text) < 2000
    again = Curve.from_dict(json.loads(text))
    np.testing.assert_allclose(again.z(*drawn.given), curve.z(*drawn.given), atol=1e-4)
    np.testing.assert_allclose(again.z_error(*drawn.given), curve.z_error(*drawn.given), rtol=0.01)
    # Limits are whole numbers that at least five people reach.
    for (low, high), own in ((curve.age_limits_years, drawn.age), (curve.bmi_limits, drawn.bmi)):
        assert (low, high) == (int(low), int(high))
        assert min((own <= low).sum(), (own >= high).sum()) >= 5
    with pytest.raises(ValueError, match='do not fit'):
        Curve.from_dict({**curve.as_dict(), 'knots_years': [20, 80]})


def test_curves_are_straight_and_smooth_beyond_the_outer_knots() -> None:
    knots = (20.0, 35.0, 50.0, 65.0, 80.0)
    step = 0.5
    age = np.arange(0, 110, step)
    design, _ = norms._designs(knots, None, age, np.full(age.size, np.nan))
    bend = np.diff(design, 2, axis=0) / step**2
    middle = age[1:-1]
    outside = (middle < knots[0] - step) | (middle > knots[-1] + step)
    np.testing.assert_allclose(bend[outside], 0, atol=1e-10)
    # A cubic spline: the second derivative has no jumps.
    assert np.abs(np.diff(bend, axis=0)).max() < 0.1 * np.abs(bend).max()
