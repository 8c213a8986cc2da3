"""Paired t, ANCOVA of sex, partial correlations and change, against pingouin and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import people, values
from scipy import stats

from bids_muscle.statistics.change import change
from bids_muscle.statistics.comparisons import ALL_MUSCLES, paired_t, sex_differences
from bids_muscle.statistics.correlations import partial_correlations
from bids_muscle.statistics.effect_size import cohen_d_interval, holm, partial_eta_squared
from bids_muscle.statistics.repeated_measures import rm_ancova
from bids_muscle.statistics.sessions import SessionOrder


def test_paired_t_agrees_with_scipy() -> None:
    wide = values(people())
    table = paired_t(wide).table
    assert len(table) == 6
    for row in table.to_dict('records'):
        expected = stats.ttest_rel(wide[row['muscle']], wide[row['other_muscle']])
        low, high = expected.confidence_interval()
        assert row['t'] == pytest.approx(expected.statistic)
        assert row['p'] == pytest.approx(expected.pvalue)
        assert (row['difference_ci_low'], row['difference_ci_high']) == pytest.approx((low, high))
        assert row['cohen_dz_ci_low'] < row['cohen_dz'] < row['cohen_dz_ci_high']


def test_pairs_take_whoever_has_both() -> None:
    wide = values(people())
    wide.iloc[:5, 0] = np.nan
    table = paired_t(wide).table.set_index(['muscle', 'other_muscle'])
    assert table.loc[('muscle 0', 'muscle 1'), 'n'] == 35
    assert table.loc[('muscle 1', 'muscle 2'), ['n', 'n_excluded']].tolist() == [40, 0]


def test_holm_as_worked_by_hand() -> None:
    # Sorted: 0.01 x 4, 0.02 x 3, 0.025 x 2 (raised to the one before), 0.9 x 1; NaN is no test.
    corrected = holm(np.array([0.9, 0.01, np.nan, 0.025, 0.02]))
    np.testing.assert_allclose(corrected, [0.9, 0.04, np.nan, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_holm_agrees_with_statsmodels() -> None:
    multitest = pytest.importorskip('statsmodels.stats.multitest')
    p = np.random.default_rng(0).random(30).round(1) ** 3
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method='holm')[1])


def test_interval_of_d_as_published() -> None:
    # Cumming and Finch 2001: t(19) = 2.0 of 20 paired values, d = 0.447, interval -0.022 to 0.903.
    low, high = cohen_d_interval(2.0, 19, 1 / np.sqrt(20))
    assert stats.nct.cdf(2.0, 19, low * np.sqrt(20)) == pytest.approx(0.975)
    assert stats.nct.cdf(2.0, 19, high * np.sqrt(20)) == pytest.approx(0.025)


@pytest.mark.parametrize('f', [0.3, 5.16, 300.0, 20000.0])
def test_interval_of_eta_leaves_out_what_the_data_exclude(f: float) -> None:
    eta, low, high = partial_eta_squared(f, 4.5, 361.8)
    assert eta == pytest.approx(f * 4.5 / (f * 4.5 + 361.8))
    total = 4.5 + 361.8 + 1
    if low > 0:
        at = low / (1 - low) * total
        assert stats.ncf.cdf(f, 4.5, 361.8, at) == pytest.approx(0.975)
    at = high / (1 - high) * total if high else 0
    assert stats.ncf.cdf(f, 4.5, 361.8, at) <= 0.0251 or high == 0
    assert low <= high


def test_sex_differences_agree_with_pingouin() -> None:
    pingouin = pytest.importorskip('pingouin')
    who = people()
    wide = values(who)
    table = sex_differences(wide, who).table.set_index('muscle')
    for muscle in wide:
        expected = pingouin.ancova(
            who.assign(value=wide[muscle]),
            dv='value',
            between='sex',
            covar=['age', 'bmi'],
            effsize='np2',
        ).iloc[0]
        row = table.loc[muscle]
        assert row['f'] == pytest.approx(expected['F'], rel=1e-6, abs=0)
        assert row['p'] == pytest.approx(expected['p_unc'], rel=1e-6, abs=0)
        assert row['partial_eta_squared'] == pytest.approx(expected['np2'], rel=1e-6, abs=0)


def test_marginal_means_are_predictions_at_the_mean_covariates() -> None:
    smf = pytest.importorskip('statsmodels.formula.api')
    who = people()
    wide = values(who)
    row = sex_differences(wide, who).table.set_index('muscle').loc['muscle 2']
    result = smf.ols('y ~ sex + age + bmi', who.assign(y=wide['muscle 2'])).fit()
    at = pd.DataFrame({'sex': ['F', 'M'], 'age': who['age'].mean(), 'bmi': who['bmi'].mean()})
    expected = result.get_prediction(at).summary_frame()
    np.testing.assert_allclose(row[['emm_female', 'emm_male']].astype(float), expected['mean'])
    np.testing.assert_allclose(
        row[['emm_female_se', 'emm_male_se']].astype(float), expected['mean_se']
    )
    low, high = -result.conf_int().loc['sex[T.M]'][::-1]
    assert (row['difference_ci_low'], row['difference_ci_high']) == pytest.approx((low, high))


def test_the_mean_of_all_muscles_is_the_between_effect() -> None:
    who = people()
    wide = values(who)
    row = sex_differences(wide, who).table.set_index('muscle').loc[ALL_MUSCLES]
    between = rm_ancova(wide, who).table.set_index('effect').loc['sex']
    assert row['f'] == pytest.approx(between['f'])
    assert row['p'] == pytest.approx(between['p'])
    assert np.isnan(row['p_holm'])


@pytest.mark.parametrize('method', ['pearson', 'spearman'])
def test_partial_correlations_agree_with_pingouin(method: str) -> None:
    pingouin = pytest.importorskip('pingouin')
    who = people()
    wide = values(who)
    table = partial_correlations(wide, who, method=method).table
    coded = who.assign(sex=(who['sex'] == 'F').astype(float))
    for row in table.to_dict('records'):
        others = [name for name in ('sex', 'age', 'bmi') if name != row['variable']]
        expected = pingouin.partial_corr(
            coded.assign(y=wide[row['muscle']]),
            x=row['variable'],
            y='y',
            covar=others,
            method=method,
        ).iloc[0]
        assert row['r'] == pytest.approx(expected['r'], rel=1e-6, abs=0)
        assert row['p'] == pytest.approx(expected['p_val'], rel=1e-6, abs=0)
        # Pingouin rounds intervals to two digits.
        assert (row['r_ci_low'], row['r_ci_high']) == pytest.approx(
            tuple(expected['CI95']), abs=0.00501
        )


def test_spearman_does_not_see_a_monotone_change_of_scale() -> None:
    who = people()
    wide = values(who)
    one = partial_correlations(wide, who, method='spearman').table
    other = partial_correlations(np.exp(wide / 5), who, method='spearman').table
    np.testing.assert_allclose(one['r'], other['r'])


def test_change_is_later_minus_first() -> None:
    who = people()
    before = values(who)
    after = before.iloc[5:] + 0.5 + np.random.default_rng(0).normal(0, 0.1, (35, 4))
    analysis = change({'ses-1': before, 'ses-2': after}, SessionOrder())
    assert set(analysis.table['n']) == {35}
    assert (analysis.table['difference_ci_low'] < 0.5).all()
    assert (analysis.table['difference_ci_high'] > 0.5).all()
    assert (analysis.table['p_holm'] < 1e-6).all()
    assert 'muscle 0 by 0.' in analysis.sentences[0]


def test_one_sex_cannot_be_compared_but_correlated() -> None:
    who = people().assign(sex='M')
    wide = values(who)
    table = sex_differences(wide, who).table
    assert table['f'].isna().all()
    assert set(table['reason']) == {'all 40 participants have sex M'}
    table = partial_correlations(wide, who).table
    assert table['r'].notna().all()
    assert set(table['controlled']) == {'age', 'bmi'}
    assert set(table['reason']) == {'sex is the same in all participants'}


def test_an_unknown_covariate_is_not_controlled_for() -> None:
    who = people().assign(bmi=np.nan)
    wide = values(who)
    sex = sex_differences(wide, who).table
    assert sex['reason'].str.contains('no participant has bmi').all()
    np.testing.assert_array_equal(sex['f'], sex_differences(wide, who, ['age']).table['f'])
    found = partial_correlations(wide, who).table.set_index('variable')
    assert found.loc['bmi', 'r'].isna().all()
    assert found.loc['age', 'r'].notna().all()
    assert set(found.loc['age', 'controlled']) == {'sex'}


def test_what_cannot_be_controlled_has_a_reason() -> None:
    who = people()
    who['bmi'] = 2 * who['age'] + 1
    wide, reason = values(who), 'are collinear'
    for table in (
        sex_differences(wide, who).table,
        partial_correlations(wide, who).table,
        partial_correlations(wide, who, method='spearman').table,
    ):
        assert table['p'].isna().all()
        assert table['reason'].str.contains(reason).all()


def test_nobody_and_one_participant_have_reasons() -> None:
    who = people(1)
    for n in (0, 1):
        wide = values(who).iloc[:n]
        for analysis in (
            paired_t(wide),
            sex_differences(wide, who.iloc[:n]),
            partial_correlations(wide, who.iloc[:n]),
            change({'ses-1': wide, 'ses-2': wide}, SessionOrder()),
        ):
            assert analysis.table['p'].isna().all()
            assert analysis.table['reason'].notna().all()
            assert analysis.sentences


def test_constant_values_have_reasons() -> None:
    who = people()
    wide = pd.DataFrame(7.0, index=who.index, columns=['a', 'b'])
    for analysis in (paired_t(wide), sex_differences(wide, who), partial_correlations(wide, who)):
        assert analysis.table['p'].isna().all()
        assert analysis.table['reason'].notna().all()


@pytest.mark.parametrize('df', [1, 5, 80, 100_000])
def test_intervals_go_on_smoothly_where_scipy_ends(df: int) -> None:
    for small, large in zip(
        cohen_d_interval(299.9, df, 1), cohen_d_interval(300.1, df, 1), strict=True
    ):
        assert large == pytest.approx(small, rel=0.003)
    below, above = partial_eta_squared(299.9**2, 1, df), partial_eta_squared(300.1**2, 1, df)
    np.testing.assert_allclose(below, above, atol=0.003)
    for t in (0.0, 1e6, 1e12, 1e100):
        eta, low, high = partial_eta_squared(t**2, 1, df)
        assert 0 <= low <= eta + 1e-12
        assert low <= high <= 1
        low, high = cohen_d_interval(-t, df, 1)
        assert low <= -t <= high or t == 0
