"""Agreement against published worked examples and against pingouin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bids_muscle.statistics.agreement import (
    agreement,
    calibrate,
    calibrate_left_out,
    icc_2_1,
)

# Bland and Altman 1986, Table 1: peak flow of 17 people, large and mini Wright meter, l/min.
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# Shrout and Fleiss 1979, Table 2: six targets by four judges.
SHROUT = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]]
)


def test_bland_altman_as_published() -> None:
    found = agreement(LARGE, MINI)
    assert found.bias == pytest.approx(-2.1, abs=0.05)
    assert found.sd_difference == pytest.approx(38.8, abs=0.05)
    # Bland and Altman 1999, section 2: interval of the bias -22.0 to 17.8.
    assert (found.bias_ci_low, found.bias_ci_high) == pytest.approx((-22.0, 17.8), abs=0.1)
    # -79.7 and 75.5 in the paper, which takes 2 where we take 1.96.
    assert found.loa_low == pytest.approx(found.bias - 1.96 * found.sd_difference)
    assert found.loa_high == pytest.approx(found.bias + 1.96 * found.sd_difference)


def test_intervals_of_the_limits_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(1000):
        found = agreement(rng.normal(2, 3, 30), np.zeros(30))
        inside += found.loa_high_ci_low < 2 + 1.96 * 3 < found.loa_high_ci_high
    assert 0.92 < inside / 1000 < 0.97


def test_errors_and_correlation() -> None:
    found = agreement([1.0, 2.0, 4.0, 8.0], [1.0, 3.0, 3.0, 6.0])
    assert found.mae == 1.0
    assert found.rmse == pytest.approx(np.sqrt(6 / 4))
    r, p = stats.pearsonr([1, 2, 4, 8], [1, 3, 3, 6])
    assert (found.pearson_r, found.pearson_p) == pytest.approx((r, p))
    assert found.r_squared == pytest.approx(r**2)


def test_icc_as_published() -> None:
    # R psych::ICC on the same table: 0.29, F(5, 15) = 11.03, p = 0.00013, 0.019 to 0.76.
    found = icc_2_1(SHROUT)
    assert found.icc == pytest.approx(0.2897638, abs=5e-8)
    assert (found.df1, found.df2) == (5, 15)
    assert found.f == pytest.approx(11.027, abs=5e-4)
    assert found.p == pytest.approx(0.000135, abs=1e-6)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0188, 0.7611), abs=5e-5)


@pytest.mark.parametrize('seed', range(5))
def test_icc_agrees_with_pingouin(seed: int) -> None:
    pingouin = pytest.importorskip('pingouin')
    import pandas as pd

    rng = np.random.default_rng(seed)
    n, k = 18, 2 + seed % 3
    ratings = rng.normal(15, 4, (n, 1)) + rng.normal(0.5, 2, (n, k)) + rng.normal(0, 1, k)
    table = pd.DataFrame(ratings).stack().rename('value').reset_index()
    expected = pingouin.intraclass_corr(table, 'level_0', 'level_1', 'value')
    row = expected.set_index('Type').loc['ICC(A,1)']
    found = icc_2_1(ratings)
    assert found.icc == pytest.approx(row['ICC'], rel=1e-6, abs=0)
    assert found.p == pytest.approx(row['pval'], rel=1e-6, abs=0)
    # Pingouin rounds intervals to two digits.
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(row['CI95']), abs=0.00501)


def test_a_bias_lowers_the_icc_but_not_the_correlation() -> None:
    truth = np.arange(20.0)
    found = agreement(truth + 5, truth)
    assert found.pearson_r == pytest.approx(1)
    assert found.icc < 0.8
    assert found.bias == 5


def test_calibration_removes_a_planted_factor() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(5, 30, 60)
    calibration = calibrate(truth * 1.1, truth)
    assert calibration.slope == pytest.approx(1 / 1.1)
    np.testing.assert_allclose(calibration.correct(truth * 1.1), truth)


def test_calibration_is_regression_without_intercept() -> None:
    sm = pytest.importorskip('statsmodels.api')
    rng = np.random.default_rng(3)
    truth = rng.uniform(5, 30, 18)
    test = truth + rng.normal(1, 2, 18)
    expected = sm.OLS(truth, test).fit()
    found = calibrate(test, truth)
    assert found.slope == pytest.approx(expected.params[0])
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(expected.conf_int()[0]))


def test_missing_values_are_left_out_and_counted() -> None:
    found = agreement([1, 2, 3, np.nan, 5], [1, 2, 4, 4, np.inf])
    assert (found.n, found.n_missing) == (3, 2)


@pytest.mark.parametrize(
    ('test', 'reference', 'missing'),
    [
        ([], [], ('bias', 'icc', 'pearson_r')),
        ([1.0], [2.0], ('se_test', 'loa_low', 'icc', 'pearson_r')),
        ([1.0, 3.0], [2.0, 7.0], ('sd_difference', 'loa_low', 'icc', 'pearson_r')),
        ([3.0] * 5, [3.0] * 5, ('icc', 'pearson_r')),
        ([3.0] * 5, [1.0, 2, 3, 4, 5], ('pearson_r',)),
    ],
)
def test_what_cannot_be_computed_has_a_reason(
    test: list[float], reference: list[float], missing: tuple[str, ...]
) -> None:
    found = agreement(test, reference)
    assert all(np.isnan(getattr(found, name)) for name in missing)
    assert found.reason
    assert found.sentence


def test_one_and_two_pairs_have_a_bias_and_errors() -> None:
    one, two = agreement([1.0], [2.5]), agreement([1.0, 3.0], [2.0, 7.0])
    assert (one.bias, one.mae, one.rmse, one.mean_test) == (-1.5, 1.5, 1.5, 1)
    assert (two.bias, two.mae, two.rmse) == (-2.5, 2.5, pytest.approx(8.5**0.5))
    assert two.se_test == pytest.approx(1)
    assert two.reason == 'there are 2 pairs; limits, correlation and ICC need 3'


def test_perfect_agreement() -> None:
    found = agreement([1.0, 2, 3, 4], [1.0, 2, 3, 4])
    assert (found.icc, found.bias, found.mae, found.calibration_slope) == (1, 0, 0, 1)
    assert found.reason == 'the interval of the ICC is undefined'


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match='shapes'):
        agreement([1.0, 2.0], [1.0])


@given(
    st.lists(st.tuples(st.floats(1, 50), st.floats(1, 50)), min_size=4, max_size=30),
    st.floats(0.01, 100),
)
def test_a_change_of_unit_changes_only_what_has_a_unit(
    pairs: list[tuple[float, float]], factor: float
) -> None:
    test, reference = np.array(pairs).T
    one, other = agreement(test, reference), agreement(test * factor, reference * factor)
    assert other.bias == pytest.approx(one.bias * factor, rel=1e-6, abs=1e-9 * factor)
    assert other.rmse == pytest.approx(one.rmse * factor, rel=1e-6, abs=1e-9 * factor)
    if one.sd_difference > 1e-3:
        assert other.icc == pytest.approx(one.icc, rel=1e-6, abs=1e-9, nan_ok=True)
    if not np.isnan(one.icc_ci_low):
        assert one.icc_ci_low <= one.icc + 1e-9
        assert one.icc <= one.icc_ci_high + 1e-9


def test_calibration_removes_a_bias_of_those_it_did_not_see() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(5, 30, 50)
    test = 0.8 * reference + rng.normal(0, 0.5, 50)
    found = agreement(test, reference)
    assert found.bias < -3
    assert abs(found.calibrated_bias) < 0.2
    assert found.calibrated_mae < 0.2 * found.mae
    others = np.arange(50) != 7
    alone = calibrate(test[others], reference[others]).correct(test[7])
    assert calibrate_left_out(test, reference)[7] == pytest.approx(alone)
    assert np.isnan(agreement(np.zeros(5), reference[:5]).calibrated_mae)
